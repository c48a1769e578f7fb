"""NetEase VOD's tables: what was promised an object name, and what has become a video."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

SCHEMA = """
CREATE TABLE IF NOT EXISTS reservations (
    bucket TEXT NOT NULL,
    object TEXT NOT NULL,        -- as init invented it
    name TEXT NOT NULL,          -- the user's name without its suffix
    type_id INTEGER NOT NULL,    -- category
    callback_url TEXT NOT NULL,  -- told after the upload; empty for the account's own
    user_defined TEXT NOT NULL,  -- handed back in that message
    PRIMARY KEY (bucket, object)
);
CREATE TABLE IF NOT EXISTS videos (
    vid INTEGER PRIMARY KEY AUTOINCREMENT,
    bucket TEXT NOT NULL,
    object TEXT NOT NULL,
    name TEXT NOT NULL,
    type_id INTEGER NOT NULL,
    size INTEGER NOT NULL,
    created REAL NOT NULL,       -- epoch seconds
    visible REAL NOT NULL,       -- epoch seconds from which the API knows it
    UNIQUE (bucket, object)
);
CREATE TABLE IF NOT EXISTS settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
"""


@dataclass(frozen=True)
class Reservation:
    """One answer of init."""

    bucket: str
    object: str
    name: str
    type_id: int
    callback_url: str
    user_defined: str


@dataclass(frozen=True)
class Video:
    """One finished upload as VOD knows it."""

    vid: int
    bucket: str
    object: str
    name: str
    type_id: int
    size: int
    created: float
    visible: float


class Videos:
    """The tables of one account."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.executescript(SCHEMA)

    def reserve(self, reservation: Reservation) -> None:
        """Note an object name."""
        with self._database as database:
            database.execute("INSERT INTO reservations VALUES (?, ?, ?, ?, ?, ?)", tuple(vars(reservation).values()))

    def reservation(self, name: str) -> Reservation | None:
        """What init said about an object name."""
        row = self._database.execute("SELECT * FROM reservations WHERE object = ?", (name,)).fetchone()
        return Reservation(*row) if row else None

    def register(self, reservation: Reservation, size: int, now: float, visible: float) -> int:
        """The id of the video; the same again for the same object."""
        with self._database as database:
            database.execute(
                "INSERT INTO videos (bucket, object, name, type_id, size, created, visible) VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (bucket, object) DO UPDATE SET size = excluded.size",
                (
                    reservation.bucket,
                    reservation.object,
                    reservation.name,
                    reservation.type_id,
                    size,
                    now,
                    visible,
                ),
            )
        where = (reservation.bucket, reservation.object)
        rows = self._database.execute("SELECT vid FROM videos WHERE bucket = ? AND object = ?", where)
        return int(rows.fetchone()[0])

    def named(self, names: Iterable[str], now: float) -> list[Video]:
        """The videos of these object names, in their order."""
        found = (
            self._database.execute("SELECT * FROM videos WHERE object = ? AND visible <= ?", (name, now)).fetchone()
            for name in names
        )
        return [Video(*row) for row in found if row]

    def get(self, vid: int, now: float) -> Video | None:
        """One video."""
        row = self._database.execute("SELECT * FROM videos WHERE vid = ? AND visible <= ?", (vid, now)).fetchone()
        return Video(*row) if row else None

    def count(self, type_id: int, now: float) -> int:
        """How many there are in a category; 0 is every category."""
        rows = self._database.execute(
            "SELECT count(*) FROM videos WHERE visible <= ? AND ? IN (0, type_id)", (now, type_id)
        )
        return int(rows.fetchone()[0])

    def page(self, type_id: int, now: float, limit: int, offset: int) -> list[Video]:
        """The newest first; a limit below zero is none."""
        rows = self._database.execute(
            "SELECT * FROM videos WHERE visible <= ? AND ? IN (0, type_id) ORDER BY vid DESC LIMIT ? OFFSET ?",
            (now, type_id, limit, offset),
        )
        return [Video(*row) for row in rows]

    def delete(self, vid: int) -> None:
        """Forget one video."""
        with self._database as database:
            database.execute("DELETE FROM videos WHERE vid = ?", (vid,))

    @property
    def callback_url(self) -> str:
        """The account's own address for messages."""
        row = self._database.execute("SELECT value FROM settings WHERE name = 'callback_url'").fetchone()
        return str(row[0]) if row else ""

    @callback_url.setter
    def callback_url(self, url: str) -> None:
        with self._database as database:
            database.execute("INSERT OR REPLACE INTO settings VALUES ('callback_url', ?)", (url,))
