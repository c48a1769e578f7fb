"""A catalog to fill by hand, a real HTTP server with faults, and real mounts that never outlive their test."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from ctypes.util import find_library
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import delete, insert, update

from dumbwaiter.catalog import Catalog
from dumbwaiter.model import Stamp
from dumbwaiter.naming import join, key_path, split
from dumbwaiter.store.database import journal_url, reading, writing
from dumbwaiter.store.tables import entries, jobs
from dumbwaiter.store.upgrade import upgrade
from dumbwaiter_fs import mount_point

if TYPE_CHECKING:
    from starter import Started, Starter

LIBFUSE3 = find_library("fuse3")
OVER_LIBFUSE3 = {"DUMBWAITER_FUSE": "mfusepy", "FUSE_LIBRARY_PATH": LIBFUSE3 or ""}
also_libfuse3 = pytest.mark.parametrize(
    "mount",
    ["fast", "fusepy", pytest.param("libfuse3", marks=pytest.mark.skipif(not LIBFUSE3, reason="no libfuse 3"))],
    indirect=True,
)
STORED = 1_700_000_000.0
MODULE = "dumbwaiter_fs.mount"
_SOON = 20.0


class Shelf:
    """A state folder with a journal, a configuration with the watch "w", and rows put in by hand."""

    def __init__(self, root: str, *, journal: bool = True) -> None:
        self.root = root
        self.drop = self._folder("drop")
        self.state = self._folder("state")
        self.mount = self._folder("mount")
        self.config = os.path.join(root, "config.toml")
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(
                f'[provider.p]\nbroker = "netease"\napp_key = "k"\napp_secret = {{ env = "NONE" }}\n'
                f'[watch.w]\npath = "{self.drop}"\nprovider = "p"\n[mount]\npath = "{self.mount}"\n'
            )
        self.session = "auto"
        self._engine: Any = None
        if journal:
            self.create()

    def choose(self, session: str) -> None:
        """Makes `session` that of the mounts to come."""
        self.session = session
        with open(self.config, encoding="utf-8") as file:
            lines = [line for line in file if not line.startswith("session = ")]
        with open(self.config, "w", encoding="utf-8") as file:
            file.writelines([*lines, f'session = "{session}"\n'])

    def _folder(self, name: str) -> str:
        path = os.path.join(self.root, name)
        os.mkdir(path)
        return path

    def create(self) -> None:
        self.open()
        upgrade(self._engine)

    def open(self) -> None:
        """Writes to the journal that stands in the state folder now."""
        self._engine = writing(journal_url(self.state))

    def close(self) -> None:
        if self._engine is not None:
            self._engine.dispose()

    def catalog(self) -> Catalog:
        return Catalog(reading(journal_url(self.state)))

    def write(self, path: str | bytes, content: bytes) -> Stamp:
        """Writes a local original."""
        whole = os.path.join(os.fsencode(self.drop), os.fsencode(path))
        os.makedirs(os.path.dirname(whole), exist_ok=True)
        with open(whole, "wb") as file:
            file.write(content)
        return Stamp.of(os.stat(whole))

    def local(self, path: str) -> str:
        return os.path.join(self.drop, path)

    def row(self, path: str, stamp: Stamp | int, *, key: str | None = None, **columns: Any) -> dict[str, Any]:
        """Returns the columns of a catalogued file."""
        if isinstance(stamp, int):
            stamp = Stamp(0, stamp, 1_600_000_000_000_000_000, 0)
        key = f"k/{path}".encode("utf-8", "surrogateescape").decode("utf-8", "replace") if key is None else key
        parent, name = split(join("w", path))
        key_parent, key_name = split(f"p/{key_path(key)}")
        return {
            "host": "h",
            "provider": "p",
            "key": key,
            "key_parent": key_parent,
            "key_name": key_name,
            "watch": "w",
            "parent": parent,
            "name": name,
            "current": True,
            "etag": "",
            "verified": "",
            "facts": {},
            "stored_at": STORED,
            **dict(zip(("inode", "size", "mtime_ns", "ctime_ns"), stamp, strict=True)),
            **columns,
        }

    def entry(self, path: str, stamp: Stamp | int, *, key: str | None = None, **columns: Any) -> None:
        """Catalogues a file; with a size in place of a stamp there is no local original."""
        values = self.row(path, stamp, key=key, **columns)
        with self._engine.begin() as connection:
            connection.execute(
                update(entries)
                .where(entries.c.parent == values["parent"], entries.c.name == values["name"])
                .values(current=False)
            )
            connection.execute(insert(entries).values(values))

    def replace(self, path: str, size: int, stored_at: float) -> None:
        """Puts another version in the place of the newest, under the same key."""
        parent, name = split(join("w", path))
        with self._engine.begin() as connection:
            connection.execute(
                update(entries)
                .where(entries.c.parent == parent, entries.c.name == name, entries.c.current)
                .values(size=size, stored_at=stored_at)
            )

    def remove(self, path: str) -> None:
        """Takes a file out of the catalog."""
        parent, name = split(join("w", path))
        with self._engine.begin() as connection:
            connection.execute(delete(entries).where(entries.c.parent == parent, entries.c.name == name))

    def job(self, path: str, stamp: Stamp, *, state: str = "pending", **columns: Any) -> None:
        """Puts a file in the outbox."""
        parent, name = split(join("w", path))
        values: dict[str, Any] = {
            "host": "h",
            "watch": "w",
            "parent": parent,
            "name": name,
            "provider": "p",
            "state": state,
            "due_at": 0.0,
            "created_at": STORED,
            "updated_at": STORED,
            **dict(zip(("inode", "size", "mtime_ns", "ctime_ns"), stamp, strict=True)),
        }
        with self._engine.begin() as connection:
            connection.execute(insert(jobs).values(values | columns))

    def settle(self, path: str) -> None:
        """Takes a file out of the outbox."""
        parent, name = split(join("w", path))
        with self._engine.begin() as connection:
            connection.execute(delete(jobs).where(jobs.c.parent == parent, jobs.c.name == name))

    def many(self, rows: list[dict[str, Any]]) -> None:
        with self._engine.begin() as connection:
            connection.execute(insert(entries), rows)


@dataclass
class Object:
    """What a url gives, and what goes wrong with it."""

    body: bytes
    etag: str | None = '"v1"'
    ranges: bool = True
    status: int | None = None
    cut_at: int | None = None  # no byte of the object from here on is ever sent
    cut_after: int | None = None  # each reply ends after so many bytes
    hang: bool = False
    drip: bool = False
    headers: dict[str, str] = field(default_factory=dict)


class Origin:
    """A provider's download host."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.requests: list[tuple[str, str]] = []
        self.connections = 0
        self.away = range(0)  # numbers of requests that meet no server, or one in trouble
        self.away_as: str | int = "drop"  # or a status
        self.closing = threading.Event()
        origin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                origin.requests.append((self.path, self.headers.get("Range", "")))
                with suppress(OSError):
                    origin.answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def process_request(self, request: Any, client_address: Any) -> None:
                origin.connections += 1
                super().process_request(request, client_address)

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a reader that hangs up in the middle is what is tested

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/{name}"

    def put(self, name: str, body: bytes, **faults: Any) -> str:
        self.objects[f"/{name}"] = Object(body, **faults)
        return self.url(name)

    def of(self, name: str) -> Object:
        return self.objects[f"/{name}"]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        thing = self.objects.get(request.path)
        away = len(self.requests) in self.away
        if away and self.away_as == "drop":
            request.close_connection = True
            return
        if away or thing is None or thing.status:
            request.send_response(int(self.away_as) if away else thing.status or 404 if thing else 404)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        if thing.hang:
            self.closing.wait(60)
            request.close_connection = True
            return
        start, stop = 0, len(thing.body)
        wanted = request.headers.get("Range", "")
        condition = request.headers.get("If-Range")
        partial = bool(wanted) and thing.ranges and (condition is None or condition == thing.etag)
        if partial:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(stop, int(last) + 1)
        request.send_response(206 if partial else 200)
        if partial and "Content-Range" not in thing.headers:
            request.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(thing.body)}")
        if thing.etag:
            request.send_header("ETag", thing.etag)
        for header, value in thing.headers.items():
            request.send_header(header, value)
        request.send_header("Content-Length", str(stop - start))
        request.end_headers()
        end = stop
        if thing.cut_at is not None:
            end = min(end, max(start, thing.cut_at))
        if thing.cut_after is not None:
            end = min(end, start + thing.cut_after)
        if thing.drip:
            for index in range(start, end):
                request.wfile.write(thing.body[index : index + 1])
                if self.closing.wait(0.1):
                    return
        request.wfile.write(thing.body[start:end])
        if end < stop:
            request.close_connection = True

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Mounted:
    """A mount process and its folder."""

    def __init__(
        self, shelf: Shelf, *flags: str, deadline: float = 3.0, starter: "Starter | None" = None, **environment: str
    ) -> None:
        """Without a starter, or with an environment of its own, Python is started for it."""
        self.shelf = shelf
        self.session = shelf.session
        self.path = shelf.mount
        self.log = os.path.join(shelf.root, "mount.log")
        self._said, output = map(open, os.pipe(), "rw")
        words = command(shelf, *flags)
        variables = {**os.environ, "DUMBWAITER_MOUNT_DEADLINE": str(deadline), **environment}
        with open(self.log, "ab") as log, output, open(os.devnull, "rb") as nothing:
            self.start = log.tell()
            self.process: subprocess.Popen[bytes] | Started = (
                subprocess.Popen(words, stdin=nothing, stdout=output, stderr=log, env=variables)
                if starter is None or environment
                else starter.start(words[3:], variables, None, (nothing, output, log), module=MODULE)
            )

    def said(self) -> str:
        with open(self.log, encoding="utf-8", errors="replace") as log:
            log.seek(self.start)
            return log.read()

    def wait(self) -> "Mounted":
        """Returns when the mount answers."""
        until(lambda: '"mounted"' in self.said() or self.process.poll() is not None)
        assert self.process.poll() is None, self.said()
        return self

    def at(self, *parts: str) -> str:
        return os.path.join(self.path, *parts)

    def read(self, *parts: str) -> bytes:
        with open(self.at(*parts), "rb") as file:
            return file.read()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(_SOON)

    def close(self) -> None:
        """Forgets a mount that was killed."""
        self._said.close()

    def clear(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(_SOON)
        with self._said:
            said = self._said.read()
        while mount_point.kind(self.path) == mount_point.KIND:
            mount_point.unmount(self.path, lazy=True)
        assert said == "", "the mount speaks on standard output"


def command(shelf: Shelf, *flags: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        MODULE,
        "--config",
        shelf.config,
        "--state",
        shelf.state,
        "--cache",
        f"{shelf.root}/cache",
        *flags,
    ]


def until(true: Callable[[], object], limit: float = _SOON) -> None:
    """Waits for something to become true; fails when it does not."""
    end = time.monotonic() + limit
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)
