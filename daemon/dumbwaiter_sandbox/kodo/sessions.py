"""Unfinished uploads of Kodo: parts of v2 and blocks of v1, in DIR/sandbox/kodo and the database.

Qiniu's developer manual, 'chunked upload v2' and 'v1'. The rule: a part sent again replaces the one there is; a
context of v1 is good for the next piece of its block only. Both outlive a restart.
"""

import base64
import hashlib
import os
import shutil
import sqlite3
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

BLOCK = 4 * 1024 * 1024
SCHEMA = """
CREATE TABLE IF NOT EXISTS kodo_uploads (
    id TEXT PRIMARY KEY,
    access_key TEXT NOT NULL,
    bucket TEXT NOT NULL,
    object TEXT NOT NULL,        -- the segment of the path, as it was at the beginning
    expires REAL NOT NULL        -- epoch seconds of the sandbox's clock
);
CREATE TABLE IF NOT EXISTS kodo_parts (
    upload TEXT NOT NULL REFERENCES kodo_uploads (id),
    number INTEGER NOT NULL,
    size INTEGER NOT NULL,
    etag TEXT NOT NULL,          -- content hash of the part
    md5 TEXT NOT NULL,           -- hex
    stored REAL NOT NULL,
    PRIMARY KEY (upload, number)
);
CREATE TABLE IF NOT EXISTS kodo_blocks (
    context TEXT PRIMARY KEY,    -- the newest of the block; an older one is no longer known
    file TEXT NOT NULL,
    access_key TEXT NOT NULL,
    size INTEGER NOT NULL,       -- of the whole block
    offset INTEGER NOT NULL,     -- bytes that are in
    expires REAL NOT NULL
);
"""


@dataclass(frozen=True)
class Part:
    """One stored part."""

    number: int
    size: int
    etag: str
    md5: str
    stored: float


@dataclass(frozen=True)
class Session:
    """One upload in parts."""

    id: str
    access_key: str
    bucket: str
    object: str
    expires: float


@dataclass(frozen=True)
class Block:
    """One block of v1 as far as it has come."""

    context: str
    file: str
    access_key: str
    size: int
    offset: int
    expires: float


class Sessions:
    """All unfinished uploads."""

    def __init__(self, data: str, database: sqlite3.Connection) -> None:
        self.folder = os.path.join(data, "sandbox", "kodo")
        os.makedirs(self.folder, exist_ok=True)
        self._database = database
        database.executescript(SCHEMA)

    def scratch(self) -> str:
        """A new file of its own."""
        return os.path.join(self.folder, uuid.uuid4().hex)

    # v2

    def begin(self, access_key: str, bucket: str, name: str, expires: float) -> Session:
        session = Session(uuid.uuid4().hex, access_key, bucket, name, expires)
        with self._database as database:
            database.execute("INSERT INTO kodo_uploads VALUES (?, ?, ?, ?, ?)", tuple(vars(session).values()))
        return session

    def find(self, id_: str, now: float) -> Session | None:
        row = self._database.execute("SELECT * FROM kodo_uploads WHERE id = ?", (id_,)).fetchone()
        session = Session(*row) if row else None
        return session if session and now < session.expires else None

    def store(self, session: Session, part: Part, source: str) -> None:
        """Move a part into place."""
        os.replace(source, self.path(session, part.number))
        with self._database as database:
            database.execute(
                "INSERT OR REPLACE INTO kodo_parts VALUES (?, ?, ?, ?, ?, ?)", (session.id, *vars(part).values())
            )

    def parts(self, session: Session) -> list[Part]:
        rows = self._database.execute(
            "SELECT number, size, etag, md5, stored FROM kodo_parts WHERE upload = ? ORDER BY number", (session.id,)
        )
        return [Part(*row) for row in rows]

    def drop_part(self, session: Session, number: int) -> None:
        with self._database as database:
            database.execute("DELETE FROM kodo_parts WHERE upload = ? AND number = ?", (session.id, number))

    def forget(self, session: Session) -> None:
        paths = [self.path(session, part.number) for part in self.parts(session)]
        with self._database as database:
            database.execute("DELETE FROM kodo_parts WHERE upload = ?", (session.id,))
            database.execute("DELETE FROM kodo_uploads WHERE id = ?", (session.id,))
        remove(paths)

    def path(self, session: Session, number: int) -> str:
        return os.path.join(self.folder, f"{session.id}.{number}")

    # v1

    def block(self, context: str, now: float) -> Block | None:
        row = self._database.execute("SELECT * FROM kodo_blocks WHERE context = ?", (context,)).fetchone()
        block = Block(*row) if row else None
        return block if block and now < block.expires else None

    def advance(self, block: Block, before: str | None) -> None:
        """Note how far a block is; the context `before` is worth nothing any more."""
        with self._database as database:
            database.execute("DELETE FROM kodo_blocks WHERE context = ?", (before,))
            database.execute("INSERT INTO kodo_blocks VALUES (?, ?, ?, ?, ?, ?)", tuple(vars(block).values()))

    def forget_blocks(self, blocks: Iterable[Block]) -> None:
        blocks = list(blocks)
        with self._database as database:
            database.executemany("DELETE FROM kodo_blocks WHERE context = ?", [(one.context,) for one in blocks])
        remove(one.file for one in blocks)


def remove(paths: Iterable[str]) -> None:
    """Delete what is there."""
    for path in paths:
        if os.path.exists(path):
            os.unlink(path)


def join(paths: Iterable[str], target: str) -> None:
    """Put files one behind the other."""
    with open(target, "wb") as whole:
        for path in paths:
            with open(path, "rb") as part:
                shutil.copyfileobj(part, whole, 1024 * 1024)


def block_digests(path: str) -> list[bytes]:
    """SHA-1 of every 4 MiB; one of nothing for an empty file."""
    digests = []
    with open(path, "rb") as file:
        while data := file.read(BLOCK):
            digests.append(hashlib.sha1(data).digest())
    return digests or [hashlib.sha1(b"").digest()]


def content_hash(path: str) -> str:
    """The hash of a file that came whole, or in blocks of 4 MiB."""
    digests = block_digests(path)
    head, tail = (b"\x16", digests[0]) if len(digests) == 1 else (b"\x96", hashlib.sha1(b"".join(digests)).digest())
    return base64.urlsafe_b64encode(head + tail).decode()


def hash_of_parts(paths: list[str]) -> str:
    """The hash of an object that came in parts: of the digests of the parts, unless they are blocks of 4 MiB."""
    sizes = [os.path.getsize(path) for path in paths]
    digests: list[bytes] = []
    for path in paths:
        blocks = block_digests(path)
        digests.append(blocks[0] if len(blocks) == 1 else hashlib.sha1(b"".join(blocks)).digest())
    if all(size == BLOCK for size in sizes[:-1]) and sizes[-1] <= BLOCK:
        head = b"\x16" if len(paths) == 1 else b"\x96"
    else:
        head = b"\x9e"
    tail = digests[0] if head == b"\x16" else hashlib.sha1(b"".join(digests)).digest()
    return base64.urlsafe_b64encode(head + tail).decode()
