"""The catalog's indexes, asked in the shape that a listing needs: names, row numbers, sizes and times, as bytes.

Each question is one range of one index and fetches only the columns of its answer, through the driver itself: a walk
over a million names asks some tens of thousands of them. Whole entries come from `dumbwaiter.catalog`.
"""

import sqlite3
import threading
from typing import Any, NamedTuple

from sqlalchemy import URL, Engine, bindparam, select

from dumbwaiter.catalog import Waiting, entry, waiting
from dumbwaiter.errors import JournalTrouble
from dumbwaiter.model import Entry
from dumbwaiter.store.database import driver, reading
from dumbwaiter.store.tables import IS_CURRENT, IS_SHOWN, entries, jobs
from dumbwaiter_fs.inodes import TREES, FileRow, Tree, ctime_sql, number_sql, row_of

Line = tuple[bytes, int, int, int, int]  # name, number, size, mtime_ns, ctime_ms


OVERLAP = 5.0  # seconds: commits need not come in the order of their times
PATIENCE = 10  # seconds for a server to answer: meanwhile nobody else is answered
MANY = 500  # changes that are told one by one
_CHANGE = "SELECT id, stored_at, key_parent, key_name, parent, name FROM entries"
_SINCE = (
    f"SELECT * FROM ({_CHANGE} WHERE stored_at >= ? ORDER BY stored_at DESC LIMIT {MANY}) AS later UNION "  # noqa: S608
    f"SELECT * FROM ({_CHANGE} WHERE id > ? ORDER BY id DESC LIMIT {MANY}) AS newer"
)


class Position(NamedTuple):
    """How far the catalog had come."""

    row: int
    at: float


class Change(NamedTuple):
    """An entry that came or was replaced, and where it stands below `keys/` and below `files/`."""

    row: int
    at: float
    key_parent: bytes
    key_name: bytes
    parent: bytes
    name: bytes


class Index:
    """The indexes of one database. Any thread may call; each call is one short read. Raises `JournalTrouble`."""

    def __init__(self, url: URL) -> None:
        self._engine: Engine = reading(url, patience=PATIENCE)
        server = self._engine.dialect.name != "sqlite"
        self._sql = {tree: _statements(tree, server) for tree in TREES.values()}
        # SQLite's `sum` fails where the sizes that a provider tells of are absurd.
        total = "coalesce(sum(size), 0)" if server else "total(size)"
        self._totals = f"SELECT count(*), {total} FROM entries"  # noqa: S608 - one of the two above
        self._since = _SINCE.replace("?", "%s") if server else _SINCE
        # For SQLite one connection is kept open for whoever finds it free: to get one from the pool costs more than the answer.
        self._kept = None if server else self._engine.raw_connection()
        self._kept_lock = threading.Lock()

    def close(self) -> None:
        with self._kept_lock:
            if self._kept is not None:
                self._kept.close()
                self._kept = None
        self._engine.dispose()

    def state(self) -> int | None:
        """Returns a number that another one's commit changes, None where the database has none to look at."""
        with self._kept_lock:  # the number means something to this connection only
            if self._kept is None:
                return None
            return int(self._kept.cursor().execute("PRAGMA data_version").fetchone()[0])

    def folders(self, tree: Tree, folder: bytes) -> list[bytes]:
        """Returns the folders in a folder, leaping along the index from one to the next."""
        found: dict[bytes, None] = {}
        skip = len(folder) + 1 if folder else 0
        beyond, end = _inside(folder) if folder else (b"", None)
        leap = self._sql[tree]["leap" if end else "leap anywhere"]
        while rows := self._rows(leap, (beyond, end) if end else (beyond,)):
            parent = bytes(rows[0][0])
            name, deeper, _ = parent[skip:].partition(b"/")
            # "a b" sorts between "a" and "a/x": a leap goes over what is inside a folder only.
            beyond = parent[: skip + len(name)] + (b"0" if deeper else b"\0")
            found[name] = None
        return list(found)

    def next_folder(self, tree: Tree, folder: bytes) -> bytes | None:
        """Returns the first folder behind another one, in the order of a walk, that has files of its own."""
        rows = self._rows(self._sql[tree]["leap anywhere"], (folder + b"\0",))
        return bytes(rows[0][0]) if rows else None

    def has_folders(self, tree: Tree, folder: bytes) -> bool:
        """True when there are folders in a folder."""
        return bool(self._rows(self._sql[tree]["leap"], _inside(folder)))

    def files(self, tree: Tree, folder: bytes, after: bytes, limit: int) -> tuple[list[Line], bool]:
        """Returns the next files of a folder by name, those behind the name `after`, and whether there may be more."""
        rows = self._rows(self._sql[tree]["page"], (folder, after, limit))
        newest = {row[0]: row for row in rows}  # several entries may have one key
        more = len(rows) == limit
        if more and (last := self.file(tree, folder, rows[-1][0])):  # the next rows may have the key too
            newest[rows[-1][0]] = (rows[-1][0], *last)
        return list(newest.values()), more

    def has_below(self, tree: Tree, folder: bytes) -> bool:
        """True when something lies in a folder, however deep."""
        return bool(self._rows(self._sql[tree]["below"], (folder, *_inside(folder))))

    def file(self, tree: Tree, folder: bytes, name: bytes) -> FileRow | None:
        """Returns the newest file of that very name."""
        rows = self._rows(self._sql[tree]["file"], (folder, name))
        return FileRow(*rows[0]) if rows else None

    def by_number(self, tree: Tree, number: int) -> FileRow | None:
        """Returns what is known of a number, None for one that the tree does not show any more."""
        rows = self._rows(self._sql[tree]["row"], (row_of(number),))
        return FileRow(*rows[0]) if rows and rows[0][0] == number else None

    def changed_at(self, tree: Tree, folder: bytes) -> float:
        """Returns when a folder's newest file came, 0.0 for a folder that holds none itself."""
        rows = self._rows(self._sql[tree]["newest"], (folder,))
        return float(rows[0][0]) if rows else 0.0

    def latest(self, tree: Tree) -> float:
        """Returns when the newest of all files came, 0.0 where there is none."""
        return float(self._rows(self._sql[tree]["latest"], ())[0][0] or 0.0)

    def whole(self, tree: Tree, number: int) -> Entry | Waiting | None:
        """Returns all that is known of a file, None for one that the tree does not show any more."""
        with self._engine.connect() as connection:
            found = connection.execute(_WHOLE[tree.table], {"row": row_of(number)}).first()
        if found is None:
            return None
        return waiting(found) if tree.table == "jobs" else entry(found)

    def all_in(self, folder: bytes) -> list[tuple[bytes, Entry]]:
        """Returns the files of a folder of `files/`, with all that is known of each."""
        text = folder.decode("utf-8", "surrogateescape")
        with self._engine.connect() as connection:
            rows = connection.execute(
                select(entries).where(IS_CURRENT, entries.c.parent == text).order_by(entries.c.name)
            )
            return [(row.name.encode("utf-8", "surrogateescape"), entry(row)) for row in rows]

    def newest(self) -> Position:
        """Returns the position from which on `since` tells what came."""
        row, at = self._rows("SELECT max(id), max(stored_at) FROM entries", ())[0]
        return Position(row or 0, at or 0.0)

    def since(self, position: Position) -> list[Change]:
        """Returns the entries that came or were replaced since, those of the last seconds before once more.

        From `MANY` on there may be others.
        """
        return [Change(*row) for row in self._rows(self._since, (position.at - OVERLAP, position.row))]

    def walks(self) -> list[Any]:
        """Returns how far the walks over the providers' own lists have come: these write entries of any time."""
        return self._rows("SELECT provider, started_at, cursor, ended_at FROM listings ORDER BY provider", ())

    def totals(self) -> tuple[int, int]:
        """Returns number and bytes of all files."""
        count, size = self._rows(self._totals, ())[0]
        return int(count), int(size)

    def _rows(self, sql: str, values: tuple[Any, ...]) -> list[Any]:
        if self._kept_lock.acquire(blocking=False):
            try:
                if self._kept is not None:
                    return list(self._kept.cursor().execute(sql, values))
            except sqlite3.Error as error:
                raise JournalTrouble(f"the journal cannot be read: {error}") from error
            finally:
                self._kept_lock.release()
        with driver(self._engine) as connection:
            return list(connection.cursor().execute(sql, values))


_WHOLE = {
    "jobs": select(jobs).where(jobs.c.id == bindparam("row"), IS_SHOWN),
    "entries": select(entries).where(entries.c.id == bindparam("row")),
}


def _inside(folder: bytes) -> tuple[bytes, bytes]:
    """Returns the bounds of all paths inside a folder, as `naming.inside` does."""
    return folder + b"/", folder + b"0"


def _statements(tree: Tree, server: bool) -> dict[str, str]:
    """Returns the questions about a tree; every name in them is one of ours."""
    _, _, table, parent, leaf, shown, since = tree
    facts = f"{number_sql(tree)}, size, mtime_ns, {ctime_sql(tree, server)}"
    one = f"SELECT {facts} FROM {table} WHERE "  # noqa: S608
    latest = "SELECT max(stored_at) AS at FROM entries"
    if table == "jobs":  # one that is done goes as an entry comes
        job = "SELECT created_at AS at FROM jobs WHERE id = (SELECT max(id) FROM jobs)"
        latest = f"SELECT max(at) FROM ({latest} UNION ALL {job}) AS last"  # noqa: S608 - the two above
    page = f"{shown}{parent} = ? AND {leaf} > ?"
    if table == "jobs":  # several jobs may stand for one path: the newest counts
        page = f"id IN (SELECT max(id) FROM jobs WHERE {page} GROUP BY {leaf} ORDER BY {leaf} LIMIT ?)"  # noqa: S608
    texts = {
        "page": f"SELECT {leaf}, {facts} FROM {table} WHERE {page} ORDER BY {leaf}, id"  # noqa: S608
        + ("" if table == "jobs" else " LIMIT ?"),
        "leap": f"SELECT {parent} FROM {table} WHERE {shown}{parent} >= ? AND {parent} < ? ORDER BY {parent} LIMIT 1",  # noqa: S608
        "leap anywhere": f"SELECT {parent} FROM {table} WHERE {shown}{parent} >= ? ORDER BY {parent} LIMIT 1",  # noqa: S608
        # One index on (parent, name) serves each half; an OR of both would be served by none.
        "below": f"SELECT 1 WHERE EXISTS (SELECT 1 FROM {table} WHERE {shown}{parent} = ?)"  # noqa: S608
        f" OR EXISTS (SELECT 1 FROM {table} WHERE {shown}{parent} >= ? AND {parent} < ?)",
        "file": f"{one}{shown}{parent} = ? AND {leaf} = ? ORDER BY id DESC LIMIT 1",
        "row": f"{one}{shown}id = ?",
        "newest": f"SELECT {since} FROM {table} WHERE id ="  # noqa: S608
        f" (SELECT max(id) FROM {table} WHERE {shown}{parent} = ?)",
        "latest": latest,
    }
    return {what: text.replace("?", "%s") if server else text for what, text in texts.items()}
