"""What the daemon answers to a command, line by line; what goes wrong on the way, in sentences that say what to do."""

import json
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from dumbwaiter.errors import Exit, Failure, NoDaemon
from dumbwaiter.naming import shown
from dumbwaiter.places import Places, daemon_runtime

if TYPE_CHECKING:
    from dumbwaiter.client import Connection

ANSWER = 20.0  # seconds until whoever is asked how things are does not answer
LONG = 60.0  # and who is to do something, or goes on telling
UNKNOWN = "Object contains unknown field"  # in what a daemon says to a request of which it does not know all


def answers(
    places: Places, method: str, path: str, body: Any = None, *, end: float | None = None
) -> Generator[Any, None, None]:
    """Yields the answer as long as it goes on, or until `end` (of the monotonic clock). Raises `Failure`."""
    import http.client

    from dumbwaiter.client import Connection

    patience = ANSWER if method == "GET" else LONG
    connection = Connection(
        places.socket,
        places.state,
        min(patience, max(0.01, end - time.monotonic())) if end else patience,
    )
    try:
        with suppress(BrokenPipeError, ConnectionResetError):  # who takes no more may have said why
            connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        if connection.sock is not None and not end:
            connection.sock.settimeout(LONG)
        said = False
        for line in _lines(response, connection, end):
            if response.status != 200:
                raise _refusal(response.status, line)
            value = json.loads(line, object_hook=_Answer)
            said = True
            yield value
        if not said and not (end and time.monotonic() >= end):
            raise ConnectionError("it ended without an answer")
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        if daemon_runtime(places.state) is not None:
            raise NoDaemon(in_use(places, by_daemon=True)) from None
        raise NoDaemon("the daemon is not running: start it with `dumbwaiter run`") from None
    except PermissionError:
        raise Failure(
            f"{shown(places.socket)} is closed to this user: name another folder with --state or --runtime",
            Exit.USAGE,
        ) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        if end is not None and time.monotonic() >= end:
            return
        if isinstance(error, TimeoutError):
            raise Failure("the daemon does not answer", Exit.TEMPORARY) from None
        raise Failure(f"the daemon broke off: {error}", Exit.TEMPORARY) from None
    finally:
        connection.close()


def in_use(places: Places, *, by_daemon: bool) -> str:
    """Says who has the state folder, of whom nothing is heard where the daemon would be."""
    if not by_daemon:
        return "another `dumbwaiter put` is at work: try again"
    return (
        f"a daemon has {shown(places.state)} and does not listen at {shown(places.socket)}: it is starting or "
        "stopping, or this command has another --runtime; if its socket was removed, it makes it anew in a moment"
    )


class _Answer(dict[str, Any]):
    """What a daemon says. Raises `Failure` for what it does not say, which one of this version would."""

    def __missing__(self, key: str) -> NoReturn:
        raise _of_another_version()


def _of_another_version() -> Failure:
    return Failure("the daemon is of another version than this command: restart it")


def _refusal(status: int, line: bytes) -> Failure:
    """Returns what the daemon says to a request; it does not know every one of another version's."""
    try:
        value = json.loads(line)
        sentence, code = str(value["error"]), Exit(value["code"])
    except (ValueError, KeyError, TypeError):
        return _of_another_version()
    return _of_another_version() if status in {404, 405} or UNKNOWN in sentence else Failure(sentence, code)


def _lines(response: Iterable[bytes], connection: "Connection", end: float | None) -> Iterator[bytes]:
    for line in response:
        if line.strip():
            yield line
        if end is not None and connection.sock is not None:
            connection.sock.settimeout(max(0.01, end - time.monotonic()))
