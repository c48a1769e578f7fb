"""HTTP to the daemon over its control socket, for commands and the mount alike."""

import http.client
import socket

from dumbwaiter.errors import Exit, Failure
from dumbwaiter.naming import shown
from dumbwaiter.peers import believed
from dumbwaiter.places import short


class Connection(http.client.HTTPConnection):
    """A connection to the socket at `path` of the daemon that has the folder `state`.

    No call on it takes longer than `timeout` seconds. Raises `Failure` when somebody else listens there.
    """

    def __init__(self, path: str, state: str, timeout: float = 60.0) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path
        self._state = state

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        with short(self._path) as path:
            self.sock.connect(path)
        if not believed(self.sock, self._state):
            self.close()
            raise Failure(
                f"somebody else listens at {shown(self._path)}: leave --runtime and DUMBWAITER_RUNTIME out, or name a folder "
                "of your own",
                Exit.USAGE,
            )
