"""HTTP to the daemon over its control socket, for commands and the mount alike."""

import http.client
import socket

from dumbwaiter.places import short


class Connection(http.client.HTTPConnection):
    """A connection to the socket at `path`; no call on it takes longer than `timeout` seconds."""

    def __init__(self, path: str, timeout: float = 60.0) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        with short(self._path) as path:
            self.sock.connect(path)
