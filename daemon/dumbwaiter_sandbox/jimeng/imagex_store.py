"""What the ImageX sandbox keeps: access keys, sessions, objects on their way and the parts of them.

Volcengine's veImageX manual, 'ApplyImageUpload' and 'CommitImageUpload'. The rule: bytes that an upload host took are no object;
the commit makes them one. All of it outlives a restart: rows in the database, bytes in DIR/sandbox/imagex.
"""

import asyncio
import hashlib
import os
import shutil
import sqlite3
import uuid
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from dumbwaiter_sandbox.jimeng.sigv4_check import Credentials

SCHEMA = """
CREATE TABLE IF NOT EXISTS imagex_keys (
    id TEXT PRIMARY KEY,
    secret TEXT NOT NULL,
    token TEXT NOT NULL,
    service TEXT NOT NULL,       -- the only ServiceId these keys are good for
    expires REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS imagex_sessions (
    session TEXT PRIMARY KEY,
    service TEXT NOT NULL,
    expires REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS imagex_objects (
    uri TEXT PRIMARY KEY,
    session TEXT NOT NULL REFERENCES imagex_sessions (session),
    announced INTEGER,           -- the size that was announced, if any
    size INTEGER,                -- of what an upload host has whole; NULL before
    md5 TEXT
);
CREATE TABLE IF NOT EXISTS imagex_uploads (
    id TEXT PRIMARY KEY,
    uri TEXT NOT NULL,
    mode TEXT NOT NULL,          -- gateway, plain or v1, as it was begun
    begun REAL NOT NULL,
    merged INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS imagex_parts (
    upload TEXT NOT NULL REFERENCES imagex_uploads (id),
    number INTEGER NOT NULL,
    crc TEXT NOT NULL,
    size INTEGER NOT NULL,
    PRIMARY KEY (upload, number)
);
"""
PIECE = 1024 * 1024


@dataclass(frozen=True)
class Held:
    """An object that was applied for."""

    uri: str
    session: str
    announced: int | None
    size: int | None
    md5: str | None


@dataclass(frozen=True)
class Upload:
    """An object that comes in parts."""

    id: str
    uri: str
    mode: str
    begun: float
    merged: bool


@dataclass(frozen=True)
class Part:
    """One part that is in."""

    number: int
    crc: str
    size: int


@dataclass(frozen=True)
class Body:
    """The body of one request, in a file of its own."""

    path: str
    size: int
    crc: str
    md5: str


class Store:
    """All of it."""

    def __init__(self, data: str, database: sqlite3.Connection) -> None:
        self._folder = os.path.join(data, "sandbox", "imagex")
        self._database = database
        os.makedirs(self._folder, exist_ok=True)
        database.executescript(SCHEMA)

    # Keys.

    def issue(self, id_: str, credentials: Credentials, service: str) -> None:
        """Note new keys."""
        row = (id_, credentials.secret, credentials.token, service, credentials.expires)
        self._write("INSERT OR REPLACE INTO imagex_keys VALUES (?, ?, ?, ?, ?)", row)

    def credentials(self, id_: str) -> Credentials | None:
        """What an access key was issued with."""
        row = self._one("SELECT secret, token, expires FROM imagex_keys WHERE id = ?", id_)
        return Credentials(*row) if row else None

    def service(self, id_: str) -> str:
        """The service that an access key is good for."""
        row = self._one("SELECT service FROM imagex_keys WHERE id = ?", id_)
        return str(row[0]) if row else ""

    # Sessions and objects.

    def begin(self, session: str, service: str, expires: float, objects: Sequence[tuple[str, int | None]]) -> None:
        """Note a session for objects, each with its announced size."""
        self._write("INSERT INTO imagex_sessions VALUES (?, ?, ?)", (session, service, expires))
        for uri, announced in objects:
            row = (uri, session, announced)
            self._write("INSERT OR REPLACE INTO imagex_objects VALUES (?, ?, ?, NULL, NULL)", row)

    def session(self, session: str) -> tuple[str, float] | None:
        """Service and end of a session."""
        return self._one("SELECT service, expires FROM imagex_sessions WHERE session = ?", session)

    def objects(self, session: str) -> list[Held]:
        """The objects of a session, in the order they were applied for."""
        rows = self._database.execute("SELECT * FROM imagex_objects WHERE session = ? ORDER BY rowid", (session,))
        return [Held(*row) for row in rows]

    def applied(self, uri: str) -> Held | None:
        """One object, None if it was not applied for."""
        row = self._one("SELECT * FROM imagex_objects WHERE uri = ?", uri)
        return Held(*row) if row else None

    def whole(self, uri: str) -> str:
        """Where the bytes of an object are until it is committed."""
        return os.path.join(self._folder, f"{hashlib.sha256(uri.encode()).hexdigest()}.whole")

    def keep(self, uri: str, body: Body) -> None:
        """Take a body as the whole of an object."""
        os.replace(body.path, self.whole(uri))
        self._write("UPDATE imagex_objects SET size = ?, md5 = ? WHERE uri = ?", (body.size, body.md5, uri))

    # Uploads in parts.

    def open(self, uri: str, mode: str, now: float) -> Upload:
        """A new upload."""
        upload = Upload(uuid.uuid4().hex, uri, mode, now, False)
        os.makedirs(self._parts(upload))
        self._write("INSERT INTO imagex_uploads VALUES (?, ?, ?, ?, 0)", (upload.id, uri, mode, now))
        return upload

    def upload(self, id_: str) -> Upload | None:
        """The upload of that name."""
        row = self._one("SELECT * FROM imagex_uploads WHERE id = ?", id_)
        return Upload(row[0], row[1], row[2], row[3], bool(row[4])) if row else None

    def forget(self, upload: Upload) -> None:
        """Drop an upload and its parts."""
        self._write("DELETE FROM imagex_parts WHERE upload = ?", (upload.id,))
        self._write("DELETE FROM imagex_uploads WHERE id = ?", (upload.id,))
        shutil.rmtree(self._parts(upload), ignore_errors=True)

    def add(self, upload: Upload, number: int, body: Body) -> None:
        """Take a body as one part; it replaces an earlier one."""
        os.replace(body.path, self._part(upload, number))
        row = (upload.id, number, body.crc, body.size)
        self._write("INSERT OR REPLACE INTO imagex_parts VALUES (?, ?, ?, ?)", row)

    def parts(self, upload: Upload) -> list[Part]:
        """The parts that are in, by number."""
        query = "SELECT number, crc, size FROM imagex_parts WHERE upload = ? ORDER BY number"
        return [Part(*row) for row in self._database.execute(query, (upload.id,))]

    async def merge(self, upload: Upload) -> Body:
        """Join all parts to the whole of the object."""
        numbers = [part.number for part in self.parts(upload)]
        target = self._fresh()
        body = await asyncio.to_thread(_joined, [self._part(upload, number) for number in numbers], target)
        self.keep(upload.uri, body)
        self._write("UPDATE imagex_uploads SET merged = 1 WHERE id = ?", (upload.id,))
        self._write("DELETE FROM imagex_parts WHERE upload = ?", (upload.id,))
        shutil.rmtree(self._parts(upload), ignore_errors=True)
        return body

    async def receive(self, stream: AsyncIterator[bytes]) -> Body:
        """Write a body to a file; nothing stays of one that breaks off."""
        path = self._fresh()
        md5, crc, size = hashlib.md5(), 0, 0
        try:
            with open(path, "wb") as file:  # noqa: ASYNC230 - what one read brings is written faster than a thread starts
                async for data in stream:
                    file.write(data)
                    md5.update(data)
                    crc = zlib.crc32(data, crc)
                    size += len(data)
        except BaseException:
            os.unlink(path)
            raise
        return Body(path, size, f"{crc:08x}", md5.hexdigest())

    def _fresh(self) -> str:
        return os.path.join(self._folder, f"{uuid.uuid4().hex}.new")

    def _parts(self, upload: Upload) -> str:
        return os.path.join(self._folder, upload.id)

    def _part(self, upload: Upload, number: int) -> str:
        return os.path.join(self._parts(upload), str(number))

    def _one(self, query: str, value: str) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._database.execute(query, (value,)).fetchone()
        return row

    def _write(self, query: str, values: tuple[object, ...]) -> None:
        with self._database as database:
            database.execute(query, values)


def _joined(paths: list[str], target: str) -> Body:
    md5, crc, size = hashlib.md5(), 0, 0
    with open(target, "wb") as file:
        for path in paths:
            with open(path, "rb") as part:
                while piece := part.read(PIECE):
                    file.write(piece)
                    md5.update(piece)
                    crc = zlib.crc32(piece, crc)
                    size += len(piece)
    return Body(target, size, f"{crc:08x}", md5.hexdigest())
