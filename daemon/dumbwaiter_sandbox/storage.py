"""Stored objects: DIR/objects/BUCKET/KEY on disk, their facts in DIR/sandbox/sandbox.db.

An object becomes visible by one rename, so a reader sees all of it or none. A slash in a key makes a folder. The few segments
that a file system reads differently (empty, "." and "..") get a "%" put in front, and so does a segment that looks like such
an escape; every key has a path of its own.
"""

import fcntl
import json
import os
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field

SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    bucket TEXT NOT NULL,
    key TEXT NOT NULL,           -- raw, decoded once
    size INTEGER NOT NULL,
    etag TEXT NOT NULL,          -- lower-case hex MD5 of the content
    content_type TEXT NOT NULL,  -- as the first chunk gave it
    modified REAL NOT NULL,      -- epoch seconds of the sandbox's clock
    meta TEXT NOT NULL,          -- JSON: user metadata headers
    PRIMARY KEY (bucket, key)
);
"""
SEGMENT_LIMIT = 255  # bytes; what file systems take
_PLAIN = re.compile(r"%*\.{0,2}")


class UnstorableError(Exception):
    """This key has no place on disk."""


@dataclass(frozen=True)
class StoredObject:
    """One object and what is known of it."""

    bucket: str
    key: str
    size: int
    etag: str
    content_type: str
    modified: float
    meta: Mapping[str, str] = field(default_factory=dict)


def open_database(data: str) -> sqlite3.Connection:
    """The sandbox's database, its tables for objects included.

    Without fsync: it outlives the process, and a power cut is not a vendor's fault to imitate.
    """
    database = sqlite3.connect(os.path.join(data, "sandbox", "sandbox.db"))
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=OFF")
    database.executescript(SCHEMA)
    return database


def lock(data: str) -> int:
    """Take the folder for this process; the caller closes the descriptor. Raises OSError when another sandbox has it."""
    held = os.open(os.path.join(data, "sandbox", "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(held)
        raise OSError(f"another sandbox runs on {data}") from error
    return held


class Objects:
    """The objects of all buckets."""

    def __init__(self, data: str, database: sqlite3.Connection) -> None:
        self._root = os.path.join(data, "objects")
        self._database = database
        os.makedirs(self._root, exist_ok=True)

    def path(self, bucket: str, key: str) -> str:
        """Where the object lies. Raises UnstorableError when no file can have that name."""
        if not bucket or not key:
            raise UnstorableError("a bucket and an object name are needed")
        return os.path.join(self._root, _segment(bucket), *map(_segment, key.split("/")))

    def publish(self, source: str, stored: StoredObject) -> None:
        """Move a finished file into place and note it. Raises UnstorableError when a file and a folder collide."""
        path = self.path(stored.bucket, stored.key)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.replace(source, path)
        except (NotADirectoryError, IsADirectoryError, FileExistsError) as error:
            raise UnstorableError("another object name stands in the way of this one on disk") from error
        facts = (
            stored.size,
            stored.etag,
            stored.content_type,
            stored.modified,
            json.dumps(dict(stored.meta)),
        )
        with self._database as database:
            database.execute(
                "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?, ?)",
                (stored.bucket, stored.key, *facts),
            )

    def find(self, bucket: str, key: str) -> StoredObject | None:
        """The object, None when there is none."""
        rows = self._database.execute("SELECT * FROM objects WHERE bucket = ? AND key = ?", (bucket, key))
        row = rows.fetchone()
        return _stored(row) if row and os.path.isfile(self.path(bucket, key)) else None

    def all(self) -> list[StoredObject]:
        """Every object, by bucket and key."""
        rows = self._database.execute("SELECT * FROM objects ORDER BY bucket, key").fetchall()
        return [stored for stored in map(_stored, rows) if os.path.isfile(self.path(stored.bucket, stored.key))]

    def remove(self, bucket: str, key: str) -> None:
        """Delete the object; one that is gone already is no error."""
        with self._database as database:
            database.execute("DELETE FROM objects WHERE bucket = ? AND key = ?", (bucket, key))
        if os.path.isfile(path := self.path(bucket, key)):
            os.unlink(path)


def _segment(text: str) -> str:
    try:
        length = len(text.encode())
    except UnicodeEncodeError as error:
        raise UnstorableError("the name is not UTF-8") from error
    if "\0" in text or "/" in text or length > SEGMENT_LIMIT:
        raise UnstorableError(f"each part of a name has at most {SEGMENT_LIMIT} bytes and no NUL")
    return "%" + text if _PLAIN.fullmatch(text) else text


def _stored(row: tuple[str, str, int, str, str, float, str]) -> StoredObject:
    return StoredObject(*row[:6], meta=json.loads(row[6]))
