"""What the mount asks of the daemon: once, on a real socket, with an errno for whatever comes back."""

import errno
import json
import os
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from dumbwaiter.errors import Exit
from dumbwaiter.model import Entry, Stamp
from dumbwaiter_fs import deadline, links
from dumbwaiter_fs.errnos import Refused
from dumbwaiter_fs.links import Links
from stranger import needs_root, stranger


def entry(number: int = 1) -> Entry:
    return Entry(number, "p", "k", "w", "a", Stamp(1, 2, 3, 4), 0.0)


class Daemon:
    """Answers on a control socket as it is told."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.asked: list[Any] = []
        self.answer: tuple[int, Any] | None = None
        daemon = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                daemon.asked.append(asked)
                number = len(daemon.asked)
                status, body = daemon.answer or (200, {"url": f"https://h/{number}", "expires_in": 600})
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

            def address_string(self) -> str:
                return ""

            def log_message(self, *args: Any) -> None:
                pass

        class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = True

        self._server = Server(path, Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(f"{tmp_path}/control.sock")
    yield made
    made.close()


def test_many_readers_of_one_file_ask_once(daemon: Daemon) -> None:
    kept = Links(daemon.path, "/none")
    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(lambda _: kept.get(entry()), range(64))) == {"https://h/1"}
    assert daemon.asked == [{"id": 1, "refused": None}]


def test_a_refused_address_is_asked_for_anew_once_for_all(daemon: Daemon) -> None:
    kept = Links(daemon.path, "/none")
    first = kept.get(entry())
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: kept.get(entry(), first), range(16))) == {"https://h/2"}
    assert daemon.asked[1:] == [{"id": 1, "refused": first}]
    assert kept.get(entry()) == "https://h/2"


def test_an_address_near_its_end_is_asked_for_anew(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Links(daemon.path, "/none")
    kept.get(entry())
    later = links.time.monotonic() + 600 - links.MARGIN
    monkeypatch.setattr(links.time, "monotonic", lambda: later)
    assert kept.get(entry()) == "https://h/2"


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        ((400, {"error": "no way", "code": int(Exit.FAILED)}), errno.ENXIO, "no way"),
        ((400, {"error": "busy", "code": int(Exit.TEMPORARY)}), errno.EHOSTUNREACH, "busy"),
        ((400, {"error": "refused", "code": int(Exit.ACCOUNT)}), errno.EACCES, "refused"),
        ((200, b"<html>"), errno.EHOSTUNREACH, "did not say"),
        ((200, {}), errno.EHOSTUNREACH, "did not say"),
        ((200, []), errno.EHOSTUNREACH, "did not say"),
        ((404, b"Not Found"), errno.EHOSTUNREACH, "did not say"),
    ],
)
def test_a_failure_has_its_errno_and_is_not_asked_about_at_once_again(
    daemon: Daemon, answer: tuple[int, Any], code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, daemon.answer = Links(daemon.path, "/none"), answer
    for _ in range(3):
        with pytest.raises(Refused) as raised:
            kept.get(entry())
        assert (raised.value.errno, words in raised.value.why) == (code, True)
    assert len(daemon.asked) == 1
    daemon.answer = None
    later = links.time.monotonic() + links.AGAIN
    monkeypatch.setattr(links.time, "monotonic", lambda: later)
    assert kept.get(entry()) == "https://h/2"


def test_a_socket_far_down_costs_no_descriptor_a_question(tmp_path: Path) -> None:
    os.mkdir(folder := tmp_path / ("x" * 120))
    kept = Links(f"{folder}/control.sock", "/none")

    def ask(number: int) -> None:
        with pytest.raises(Refused):
            kept.get(entry(number))

    ask(0)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(1, 20):
        ask(number)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_daemon_that_stands_still_holds_a_read_no_longer_than_its_deadline(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{tmp_path}/control.sock")
        silent.listen()
        kept = Links(f"{tmp_path}/control.sock", "/none")

        def ask(_: int) -> str:
            with deadline.until(time.monotonic() + 0.5), pytest.raises(Refused) as raised:
                kept.get(entry())
            return raised.value.why

        started = time.monotonic()
        with ThreadPoolExecutor(3) as pool:  # the first asks, and the others wait for it
            assert set(pool.map(ask, range(3))) == {links.SILENT}
        assert time.monotonic() - started < links.TIMEOUT / 3


@pytest.mark.parametrize("what", ["nothing", "no folder", "a dead socket"])
def test_without_a_daemon_that_is_said(tmp_path: Path, what: str) -> None:
    path = f"{tmp_path}/sub/control.sock" if what == "no folder" else f"{tmp_path}/control.sock"
    if what == "a dead socket":
        Daemon(path).close()
        assert os.path.exists(path)
    with pytest.raises(Refused) as raised:
        Links(path, "/none").get(entry())
    assert raised.value.errno == errno.ENXIO
    assert "is not running" in raised.value.why


@needs_root
def test_a_stranger_at_the_socket_is_not_asked(tmp_path: Path) -> None:
    with (
        stranger(path := f"{tmp_path}/control.sock", {"url": "https://evil/", "expires_in": None}),
        pytest.raises(Refused) as raised,
    ):
        Links(path, str(tmp_path)).get(entry())
    assert raised.value.errno == errno.EACCES
    assert "somebody else listens" in raised.value.why
