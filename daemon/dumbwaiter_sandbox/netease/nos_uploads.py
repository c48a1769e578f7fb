"""Unfinished NOS uploads and the contexts that name them.

NetEase's VOD manual, 'media upload' and 'query of the upload breakpoint': a context is opaque, belongs to one bucket and
object, and every node knows it. Contexts outlive a restart: rows in the database, the bytes in DIR/sandbox/partial/ID. The row's
`stored` is the truth; bytes of the file beyond it are the rest of a broken request and are cut off before the next one.
"""

import asyncio
import hashlib
import json
import os
import sqlite3
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

SCHEMA = """
CREATE TABLE IF NOT EXISTS uploads (
    id TEXT PRIMARY KEY,
    bucket TEXT NOT NULL,
    object TEXT NOT NULL,
    owner TEXT NOT NULL,         -- signature of the token of the first chunk
    content_type TEXT NOT NULL,  -- of the first chunk; later ones do not count
    meta TEXT NOT NULL,          -- JSON: user metadata headers of the first chunk
    stored INTEGER NOT NULL,     -- bytes accepted so far
    chunks INTEGER NOT NULL,     -- accepted chunks, for rotation
    touched REAL NOT NULL        -- epoch seconds of the last accepted chunk
);
CREATE TABLE IF NOT EXISTS contexts (
    context TEXT PRIMARY KEY,    -- an older one stays valid beside the newest
    upload TEXT NOT NULL REFERENCES uploads (id)
);
"""
PIECE = 1024 * 1024  # bytes hashed and written in one step off the loop
INLINE = 64 * 1024  # below this a thread costs more than the work


@dataclass
class Upload:
    """One object that is on its way."""

    id: str
    bucket: str
    object: str
    owner: str
    content_type: str
    meta: Mapping[str, str]
    stored: int = 0
    chunks: int = 0
    touched: float = 0.0
    over: bool = False
    contexts: list[str] = field(default_factory=list, repr=False)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    # MD5 of the first `stored` bytes; None after a restart or a step back, then made again from the file.
    md5: "hashlib._Hash | None" = field(default=None, repr=False)


@dataclass(frozen=True)
class Body:
    """What came of one request's body: all of it, the part to keep, and the MD5 with that part added."""

    received: int
    taken: int
    md5: "hashlib._Hash"


class Uploads:
    """All unfinished uploads."""

    def __init__(self, data: str, database: sqlite3.Connection) -> None:
        self._folder = os.path.join(data, "sandbox", "partial")
        self._database = database
        os.makedirs(self._folder, exist_ok=True)
        database.executescript(SCHEMA)
        self._uploads: dict[str, Upload] = {row[0]: _upload(row) for row in database.execute("SELECT * FROM uploads")}
        self._contexts: dict[str, Upload] = {}
        for context, id_ in database.execute("SELECT context, upload FROM contexts"):
            self._adopt(self._uploads[id_], context)
        self._sweep()

    def begin(self, bucket: str, name: str, owner: str, content_type: str, meta: Mapping[str, str]) -> Upload:
        """A new upload, in memory only until its first chunk is accepted."""
        return Upload(uuid.uuid4().hex, bucket, name, owner, content_type, meta, md5=hashlib.md5())

    def find(self, context: str, now: float, life: float) -> Upload | None:
        """The upload that a context names; one that rested too long is forgotten."""
        upload = self._contexts.get(context)
        if upload is not None and now - upload.touched > life and not upload.lock.locked():
            self.forget(upload)
            return None
        return upload

    def path(self, upload: Upload) -> str:
        """The file with its bytes."""
        return os.path.join(self._folder, upload.id)

    async def read(self, upload: Upload, body: AsyncIterator[bytes], take: int) -> Body:
        """Write a request's body behind what is stored, at most `take` bytes of it. Needs the upload's lock.

        Nothing counts before `accept`; whether the body came whole is for the caller to see from the bytes received.
        """
        if upload.md5 is None:
            upload.md5 = await asyncio.to_thread(_digest, self.path(upload), upload.stored)
        tail = _Tail(self.path(upload), upload.stored, upload.md5.copy(), take)
        try:
            async for data in body:
                await tail.add(data)
            await tail.flush()
        finally:
            await tail.close()
        return Body(tail.received, tail.taken, tail.md5)

    def accept(self, upload: Upload, body: Body, now: float) -> None:
        """Count a body's part as stored."""
        upload.stored += body.taken
        upload.md5 = body.md5
        upload.chunks += 1
        upload.touched = now
        if upload.id in self._uploads:
            self._write(upload)

    def back(self, upload: Upload, offset: int) -> None:
        """Lose everything behind an offset."""
        if offset < upload.stored:
            upload.stored, upload.md5 = offset, None
            self._write(upload)

    def name(self, upload: Upload) -> str:
        """A new context for this upload; the older ones stay valid."""
        context = str(uuid.uuid4())
        self._adopt(upload, context)
        self._uploads[upload.id] = upload
        self._write(upload, context)
        return context

    def forget(self, upload: Upload) -> None:
        """Drop the upload, its contexts and its bytes (if they were not moved away)."""
        upload.over = True
        if self._uploads.pop(upload.id, None):
            for context in upload.contexts:
                del self._contexts[context]
            with self._database as database:
                database.execute("DELETE FROM contexts WHERE upload = ?", (upload.id,))
                database.execute("DELETE FROM uploads WHERE id = ?", (upload.id,))
        if os.path.exists(path := self.path(upload)):
            os.unlink(path)

    def _adopt(self, upload: Upload, context: str) -> None:
        self._contexts[context] = upload
        upload.contexts.append(context)

    def _write(self, upload: Upload, context: str = "") -> None:
        row = (upload.bucket, upload.object, upload.owner, upload.content_type, json.dumps(dict(upload.meta)))
        with self._database as database:
            database.execute(
                "INSERT OR REPLACE INTO uploads VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (upload.id, *row, upload.stored, upload.chunks, upload.touched),
            )
            if context:
                database.execute("INSERT INTO contexts VALUES (?, ?)", (context, upload.id))

    def _sweep(self) -> None:
        for name in set(os.listdir(self._folder)) - self._uploads.keys():
            os.unlink(os.path.join(self._folder, name))
        for upload in list(self._uploads.values()):
            if not os.path.exists(self.path(upload)):
                self.forget(upload)


class _Tail:
    """The end of a partial file: one piece is written and hashed in a thread while the next arrives."""

    def __init__(self, path: str, at: int, md5: "hashlib._Hash", take: int) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._file, at)
        self._at = at
        self._pieces: list[bytes] = []
        self._gathered = 0
        self._running: asyncio.Future[None] | None = None
        self._left = take
        self.md5 = md5
        self.received = 0
        self.taken = 0

    async def add(self, data: bytes) -> None:
        self.received += len(data)
        part = data[: self._left]
        self._left -= len(part)
        self.taken += len(part)
        if part:
            self._pieces.append(part)
            self._gathered += len(part)
        if self._gathered >= PIECE:
            await self._start()

    async def flush(self) -> None:
        await self._wait()
        if self._gathered <= INLINE:
            self._put(self._pieces, self._at)
        else:
            await self._start()
            await self._wait()

    async def close(self) -> None:
        try:
            await self._wait()
        finally:
            os.close(self._file)

    async def _start(self) -> None:
        await self._wait()
        pieces, at = self._pieces, self._at
        self._pieces, self._at, self._gathered = [], at + self._gathered, 0
        self._running = asyncio.get_running_loop().run_in_executor(None, self._put, pieces, at)

    async def _wait(self) -> None:
        if self._running is not None:
            # Not awaited itself: when this task is cancelled, the thread must still end before the file is closed.
            await asyncio.wait([self._running])
            running, self._running = self._running, None
            running.result()

    def _put(self, pieces: list[bytes], at: int) -> None:
        for piece in pieces:
            os.pwrite(self._file, piece, at)
            self.md5.update(piece)
            at += len(piece)


def _digest(path: str, length: int) -> "hashlib._Hash":
    md5 = hashlib.md5()
    with open(path, "rb") as file:
        while length > 0 and (piece := file.read(min(PIECE, length))):
            md5.update(piece)
            length -= len(piece)
    return md5


def _upload(row: tuple[str, str, str, str, str, str, int, int, float]) -> Upload:
    return Upload(*row[:5], json.loads(row[5]), *row[6:])
