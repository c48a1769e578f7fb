"""The hosts that files are read from: requests to them, and for some seconds none to one that could not be reached."""

import errno
import threading
import time

import httpcore
import httpx

from dumbwaiter_fs.deadline import Transport
from dumbwaiter_fs.errnos import Refused

SILENCE = 10.0  # seconds without a byte
CONNECT = 5.0
REST = 5.0  # seconds without a request to an origin that could not be reached


class Origins:
    """Connections to all origins. Any thread may call. `deadline`: seconds that one read may take."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None
        self._down: dict[tuple[str, int | None], tuple[float, int]] = {}

    def check(self, url: str) -> None:
        """Raises at once what the last attempt on this origin came to, if that was a moment ago."""
        with self._lock:
            until, code = self._down.get(origin(url), (0.0, 0))
        if time.monotonic() < until:
            raise Refused(code, "the origin did not answer a moment ago")

    def get(self, url: str, headers: dict[str, str]) -> httpx.Response:
        """Sends a request and returns the reply with its body unread. Raises an errno."""
        self.check(url)
        try:
            client = self._opened()
            return client.send(client.build_request("GET", url, headers=headers), stream=True)
        except (httpx.InvalidURL, UnicodeError):  # the last of a host like a..b
            raise Refused(errno.ENXIO, "the url cannot be read") from None
        except (httpcore.ConnectError, httpx.ConnectError):
            raise self._tripped(url, errno.EHOSTUNREACH) from None
        except (httpcore.TimeoutException, httpx.TimeoutException):
            raise self.late(url) from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpx.HTTPError) as error:
            raise Refused(errno.EIO, type(error).__name__) from None

    def late(self, url: str) -> Refused:
        return self._tripped(url, errno.ETIMEDOUT)

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _opened(self) -> httpx.Client:
        with self._lock:
            if self._client is None:  # its certificates take a while to load, and listing needs none
                self._client = httpx.Client(
                    transport=Transport(),
                    timeout=httpx.Timeout(min(SILENCE, self._deadline), connect=min(CONNECT, self._deadline)),
                    follow_redirects=False,
                    headers={"Accept-Encoding": "identity", "User-Agent": "dumbwaiter-mount"},
                )
            return self._client

    def _tripped(self, url: str, code: int) -> Refused:
        with self._lock:
            self._down[origin(url)] = (time.monotonic() + REST, code)
        return Refused(code, "no connection" if code == errno.EHOSTUNREACH else "no answer in time")


def origin(url: str) -> tuple[str, int | None]:
    """Returns host and port of a url. Raises ENXIO for one that nothing can be read from."""
    try:
        parsed = httpx.URL(url)
        host = parsed.host
    except (httpx.InvalidURL, UnicodeError):
        raise Refused(errno.ENXIO, "the url cannot be read") from None
    if parsed.scheme not in {"http", "https"} or not host:
        raise Refused(errno.ENXIO, "the url is none of http or https")
    return host, parsed.port
