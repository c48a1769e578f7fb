"""Unfinished multipart uploads of OSS: rows in the database, parts in DIR/sandbox/oss/ID/NUMBER.

OSS's manual, 'InitiateMultipartUpload' and the calls after it. An upload id is bound to bucket and key and to no credentials; a
part sent again replaces the earlier one; both outlive a restart.
"""

import os
import shutil
import sqlite3
import uuid
from dataclasses import dataclass

SCHEMA = """
CREATE TABLE IF NOT EXISTS oss_uploads (
    id TEXT PRIMARY KEY,
    bucket TEXT NOT NULL,
    key TEXT NOT NULL,
    content_type TEXT NOT NULL,
    over INTEGER NOT NULL DEFAULT 0  -- completed
);
CREATE TABLE IF NOT EXISTS oss_parts (
    upload TEXT NOT NULL REFERENCES oss_uploads (id),
    number INTEGER NOT NULL,
    size INTEGER NOT NULL,
    etag TEXT NOT NULL,      -- upper-case hex MD5
    crc TEXT NOT NULL,       -- decimal
    stored REAL NOT NULL,
    PRIMARY KEY (upload, number)
);
"""


@dataclass(frozen=True)
class Part:
    """One part that is in."""

    number: int
    size: int
    etag: str
    crc: int
    stored: float


@dataclass(frozen=True)
class Upload:
    """One object that is on its way."""

    id: str
    bucket: str
    key: str
    content_type: str
    over: bool


class Uploads:
    """All unfinished uploads."""

    def __init__(self, data: str, database: sqlite3.Connection) -> None:
        self._folder = os.path.join(data, "sandbox", "oss")
        os.makedirs(self._folder, exist_ok=True)
        self._database = database
        database.executescript(SCHEMA)

    def scratch(self) -> str:
        """A name for bytes that are on their way in."""
        return os.path.join(self._folder, f"in-{uuid.uuid4().hex}")

    def begin(self, bucket: str, key: str, content_type: str) -> Upload:
        """A new upload."""
        upload = Upload(uuid.uuid4().hex.upper(), bucket, key, content_type, over=False)
        os.makedirs(os.path.join(self._folder, upload.id))
        with self._database as database:
            database.execute("INSERT INTO oss_uploads VALUES (?, ?, ?, ?, 0)", (upload.id, bucket, key, content_type))
        return upload

    def find(self, id_: str) -> Upload | None:
        """The upload of that id, a completed one too."""
        row = self._database.execute("SELECT * FROM oss_uploads WHERE id = ?", (id_,)).fetchone()
        return Upload(row[0], row[1], row[2], row[3], bool(row[4])) if row else None

    def path(self, upload: Upload, number: int) -> str:
        """Where a part lies."""
        return os.path.join(self._folder, upload.id, str(number))

    def store(self, upload: Upload, part: Part, source: str) -> None:
        """Take a part in; an earlier one of that number is gone."""
        os.replace(source, self.path(upload, part.number))
        facts = (part.number, part.size, part.etag, str(part.crc), part.stored)
        with self._database as database:
            database.execute("INSERT OR REPLACE INTO oss_parts VALUES (?, ?, ?, ?, ?, ?)", (upload.id, *facts))

    def parts(self, upload: Upload) -> list[Part]:
        """All parts, by number."""
        rows = self._database.execute(
            "SELECT number, size, etag, crc, stored FROM oss_parts WHERE upload = ? ORDER BY number", (upload.id,)
        )
        return [Part(row[0], row[1], row[2], int(row[3]), row[4]) for row in rows]

    def end(self, upload: Upload, *, forget: bool = False) -> None:
        """Drop the parts; the id is remembered as used unless it is to be forgotten."""
        shutil.rmtree(os.path.join(self._folder, upload.id), ignore_errors=True)
        with self._database as database:
            database.execute("DELETE FROM oss_parts WHERE upload = ?", (upload.id,))
            if forget:
                database.execute("DELETE FROM oss_uploads WHERE id = ?", (upload.id,))
            else:
                database.execute("UPDATE oss_uploads SET over = 1 WHERE id = ?", (upload.id,))

    def join(self, upload: Upload, numbers: list[int], path: str) -> None:
        """Write the parts one behind the other."""
        with open(path, "wb") as whole:
            for number in numbers:
                with open(self.path(upload, number), "rb") as part:
                    shutil.copyfileobj(part, whole, 1024 * 1024)
