"""The sink written in C (`sink.c`), compiled on the spot: what a sender costs, and not what a slow receiver takes."""

import json
import os
import subprocess
from typing import Any, Self

from tests.bench import machine, process

HERE = os.path.dirname(__file__)


def build(folder: str) -> str:
    """Compiles the sink into a folder and returns its path; ends the run where that cannot be done."""
    program = os.path.join(folder, "sink")
    if not os.path.exists("/usr/include/openssl/ssl.h"):
        raise SystemExit(
            "OpenSSL's headers are missing, and with them the sink that speaks TLS: apt-get install libssl-dev"
        )
    compiler = machine.require("cc", package="gcc")
    subprocess.run([compiler, "-O2", "-pthread", "-o", program, f"{HERE}/sink.c", "-lssl", "-lcrypto"], check=True)
    return program


def certificate(folder: str) -> tuple[str, str]:
    """Makes a certificate for 127.0.0.1, good for a day, and returns the paths of it and of its key."""
    paths = os.path.join(folder, "certificate.pem"), os.path.join(folder, "key.pem")
    command = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    subprocess.run(
        [
            machine.require("openssl", package="openssl"),
            *command,
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-out", paths[0], "-keyout", paths[1]),
        ],
        check=True,
        capture_output=True,
    )
    return paths


class FastSink:
    """A fresh one, which listens inside `with`; `arrived` ends it and tells what it got."""

    def __init__(self, program: str, *words: str) -> None:
        self._command = [program, *words]
        self._scheme = "https" if "tls" in words else "http"

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=process.environment()
        )
        assert self._process.stdout is not None
        port = self._process.stdout.readline().decode().strip()
        if not port:
            raise RuntimeError("the sink does not start")
        self.url = f"{self._scheme}://127.0.0.1:{port}"
        return self

    def __exit__(self, *_error: object) -> None:
        process.end(self._process)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()

    def arrived(self) -> dict[str, Any]:
        """Ends the sink and returns its bytes, requests, connections, and when the first and the last byte came."""
        told, _ = self._process.communicate(timeout=30)
        facts: dict[str, Any] = json.loads(told)
        return facts
