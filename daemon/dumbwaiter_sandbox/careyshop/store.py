"""What a shop keeps: who is signed in, and its list of stored files.

CareyShop's API manual, 'administrator sign-in' and 'storage'. One live token for each platform name; a list shows one directory, a
search by name the whole store.
"""

import sqlite3
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SCHEMA = """
CREATE TABLE IF NOT EXISTS careyshop_sessions (
    platform TEXT PRIMARY KEY,
    token TEXT NOT NULL,
    expires REAL NOT NULL,
    refresh TEXT NOT NULL,
    refresh_expires REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS careyshop_storage (
    storage_id INTEGER PRIMARY KEY AUTOINCREMENT,
    parent_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    mime TEXT NOT NULL,
    ext TEXT NOT NULL,
    size INTEGER NOT NULL,
    hash TEXT NOT NULL,
    path TEXT NOT NULL,
    url TEXT NOT NULL,
    protocol TEXT NOT NULL,
    type INTEGER NOT NULL,        -- 0 image, 1 other file, 2 directory, 3 video
    create_time TEXT NOT NULL,
    update_time TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS careyshop_parent ON careyshop_storage (parent_id);
"""
COLUMNS = (
    "storage_id parent_id name mime ext size hash path url protocol type create_time update_time".split()  # noqa: SIM905
)

_IDS = "SELECT storage_id FROM careyshop_storage"
_DELETE = "DELETE FROM careyshop_storage"


@dataclass(frozen=True)
class Session:
    """One sign-in."""

    platform: str
    token: str
    expires: float
    refresh: str
    refresh_expires: float

    def as_json(self) -> dict[str, object]:
        """The token object of an answer."""
        return {
            "group_id": 1,
            "token": self.token,
            "token_expires": int(self.expires),
            "refresh": self.refresh,
            "refresh_expires": int(self.refresh_expires),
        }


class Store:
    """Both tables."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.executescript(SCHEMA)

    def sign_in(self, platform: str, now: float, life: float) -> Session:
        """A new session; the one of that platform before it is dead."""
        session = Session(platform, uuid.uuid4().hex, now + life, uuid.uuid4().hex, now + life + 86400)
        with self._database as database:
            database.execute(
                "INSERT OR REPLACE INTO careyshop_sessions VALUES (?, ?, ?, ?, ?)", tuple(vars(session).values())
            )
        return session

    def session(self, token: str) -> Session | None:
        """The session of a token."""
        row = self._database.execute("SELECT * FROM careyshop_sessions WHERE token = ?", (token,)).fetchone()
        return Session(*row) if row else None

    def sign_out(self) -> None:
        """End every session."""
        with self._database as database:
            database.execute("DELETE FROM careyshop_sessions")

    def keep(self, item: dict[str, object], *, same: tuple[str, ...] = ()) -> dict[str, object]:
        """Add a file, or update the one that agrees in the columns `same`; the row."""
        found = None
        if same:
            where = " AND ".join(f"{name} = ?" for name in same)
            sql = f"SELECT storage_id, create_time, parent_id FROM careyshop_storage WHERE {where}"  # noqa: S608 - columns of ours
            found = self._database.execute(sql, [item[name] for name in same]).fetchone()
        if found:
            item = {**item, "storage_id": found[0], "create_time": found[1]}
        row = {name: item.get(name) for name in COLUMNS}
        with self._database as database:
            marks = ", ".join("?" * len(COLUMNS))
            cursor = database.execute(f"INSERT OR REPLACE INTO careyshop_storage VALUES ({marks})", list(row.values()))  # noqa: S608
        return {**row, "storage_id": cursor.lastrowid}

    def add(self, items: Iterable[Mapping[str, object]]) -> None:
        """Add many files at once."""
        marks = ", ".join("?" * len(COLUMNS))
        with self._database as database:
            database.executemany(
                f"INSERT INTO careyshop_storage VALUES ({marks})",  # noqa: S608
                ([item.get(name) for name in COLUMNS] for item in items),
            )

    def remove(self, ids: Iterable[int]) -> list[str]:
        """Remove rows, and all that lies in those that are directories; the paths of the files."""
        paths = []
        left = list(ids)
        with self._database as database:
            while left:
                id_ = left.pop()
                left += [row[0] for row in database.execute(f"{_IDS} WHERE parent_id = ?", (id_,))]
                paths += [row[0] for row in database.execute(f"{_DELETE} WHERE storage_id = ? RETURNING path", (id_,))]
        return [path for path in paths if path]

    def inside(self, parent: int, name: str) -> int | None:
        """The number of the directory of that name in a directory."""
        sql = f"{_IDS} WHERE parent_id = ? AND name = ? AND type = 2"
        row = self._database.execute(sql, (parent, name)).fetchone()
        return int(row[0]) if row else None

    def item(self, id_: int) -> dict[str, object] | None:
        """The row with this number."""
        row = self._database.execute("SELECT * FROM careyshop_storage WHERE storage_id = ?", (id_,)).fetchone()
        return dict(zip(COLUMNS, row, strict=True)) if row else None

    def first(self, parent: int) -> list[int]:
        """The number of the oldest row of a directory, if it has any."""
        sql = f"{_IDS} WHERE parent_id = ? ORDER BY storage_id LIMIT 1"
        return [row[0] for row in self._database.execute(sql, (parent,))]

    def items(
        self, parent: int, name: str, column: str, *, down: bool, page: int, size: int
    ) -> tuple[list[dict[str, object]], int]:
        """A page of the list, and how many there are in all."""
        where, value = ("name LIKE '%' || ? || '%'", name) if name else ("parent_id = ?", parent)
        column = column if column in COLUMNS else "storage_id"
        sql = f"FROM careyshop_storage WHERE {where}"
        total = self._database.execute(f"SELECT count(*) {sql}", (value,)).fetchone()[0]
        rows = self._database.execute(
            f"SELECT * {sql} ORDER BY {column} {'DESC' if down else 'ASC'} LIMIT ? OFFSET ?",
            (value, size, (page - 1) * size),
        )
        return [dict(zip(COLUMNS, row, strict=True)) for row in rows], total
