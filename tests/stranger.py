"""Another user of the machine, who listens where a daemon would and answers whatever is asked."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

UID = 4242
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
_SCRIPT = """
import os, socket, sys
path, body = sys.argv[1:]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
os.setgid(4242), os.setuid(4242)
listener.listen()  # whose the socket is, is settled here
print(flush=True)
while True:
    connection, _ = listener.accept()
    if connection.recv(1 << 16):
        connection.sendall(f"HTTP/1.1 200 OK\\r\\nContent-Length: {len(body)}\\r\\nConnection: close\\r\\n\\r\\n{body}".encode())
    connection.close()
"""


@contextmanager
def stranger(path: str, answer: Any) -> Iterator[None]:
    """Listens at `path` meanwhile."""
    command = [sys.executable, "-c", _SCRIPT, path, json.dumps(answer)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield
        finally:
            process.kill()
