"""What is at the providers, and what is on its way, as three trees of names. Read only; every answer is a query.

`keys/PROVIDER/KEY`, `files/WATCH/PATH` and `outbox/WATCH/PATH`: a path's first part names the tree, the rest is
looked up by one index on (parent, name). Folders are not stored: one exists while something lies below it.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any

from msgspec import Struct
from sqlalchemy import Column, ColumnElement, Connection, Engine, Row, Table, Text, exists, select, true, type_coerce

from dumbwaiter.model import Entry, Stamp, State
from dumbwaiter.naming import TREES, inside, join, split
from dumbwaiter.store.errands import AFTER
from dumbwaiter.store.rows import path_of, stamp_of
from dumbwaiter.store.tables import IS_CURRENT, IS_SHOWN, entries, errands, jobs

HIDDEN = "%"  # ends the name of a file that shares it with a folder; a key's own "%" is escaped
PAGE = 5000  # entries that one query returns of very many
SAME = 3  # entries of one content that are worth asking for


class Waiting(Struct, frozen=True):
    """A file that is not done yet."""

    id: int
    provider: str
    watch: str
    path: str  # below the watch
    stamp: Stamp
    state: State
    sent: int
    created_at: float
    key: str | None = None
    error: str | None = None

    @property
    def size(self) -> int:
        return self.stamp.size


class Node(Struct, frozen=True):
    """A name in a tree: a folder, or a file with what is known of it."""

    name: str
    file: Entry | Waiting | None = None

    @property
    def folder(self) -> bool:
        return self.file is None


class _Tree(Struct, frozen=True):
    table: Table
    parent: Column[str]
    name: Column[str]
    shown: ColumnElement[bool]


_TREES = {
    "keys": _Tree(entries, entries.c.key_parent, entries.c.key_name, true()),
    "files": _Tree(entries, entries.c.parent, entries.c.name, IS_CURRENT),
    "outbox": _Tree(jobs, jobs.c.parent, jobs.c.name, IS_SHOWN),
}


class Catalog:
    """The trees over one database. Any thread may call; each call is one short read."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, path: str) -> Node | None:
        """Returns what stands at `path` ("files/masters/a/b.mov"), None when nothing does.

        Where a file and a folder have one name, the name is the folder's and the file's is that name with "%", or with
        as many as make it one that nothing else has.
        """
        tree_name, _, inner = path.partition("/")
        tree = _TREES.get(tree_name)
        if tree is None:
            return None
        if not inner:
            return Node(tree_name)
        parent, name = split(inner)
        with self._engine.connect() as connection:
            if _has_below(connection, tree, inner):
                return Node(name)
            if (row := _file(connection, tree, parent, name)) is not None:
                return _node(row, tree)
            hidden = name
            while hidden.endswith(HIDDEN):
                hidden = hidden.removesuffix(HIDDEN)
                row = _file(connection, tree, parent, hidden)
                is_folder = _has_below(connection, tree, join(parent, hidden))
                if row is not None and is_folder:
                    return Node(name, _node(row, tree).file)
                if row is None and not is_folder:
                    return None  # a free name that would have been taken before
            return None

    def children(self, path: str) -> list[Node]:
        """Returns what a folder holds: its folders first, then its files. Empty for a path that is no folder."""
        if not path:
            return [Node(name) for name in TREES]
        tree_name, _, inner = path.partition("/")
        tree = _TREES.get(tree_name)
        if tree is None:
            return []
        with self._engine.connect() as connection:
            folders = {name: Node(name) for name in _folders(connection, tree, inner)}
            files: dict[str, Node] = {}
            for row in connection.execute(
                select(tree.table).where(tree.shown, tree.parent == inner).order_by(tree.name, tree.table.c.id)
            ):
                node = _node(row, tree)
                files[node.name] = node  # several jobs may stand for one path: the newest counts
        taken = folders.keys() | files.keys()
        return [*folders.values(), *(_beside(node, taken) if node.name in folders else node for node in files.values())]

    def entry(self, number: int) -> Entry | None:
        """Returns the entry with this id."""
        with self._engine.connect() as connection:
            row = connection.execute(select(entries).where(entries.c.id == number)).first()
        return None if row is None else entry(row)

    def same(self, provider: str, size: int, place: str, digest: Callable[[], str]) -> tuple[str, list[Entry]]:
        """Returns the digest of the file at `place` and the entries with its content, newest first; none of its own key.

        `digest` is called, and the digest known, only if the provider has anything of that size.
        """
        like = (entries.c.provider == provider) & (entries.c.size == size) & entries.c.digest.is_not(None)
        with self._engine.connect() as connection:
            if connection.execute(select(entries.c.id).where(like).limit(1)).first() is None:
                return "", []
        found = digest()
        parent, name = split(place)
        own = entries.alias()
        of_own_key = exists().where(
            *(own.c[column] == entries.c[column] for column in ("provider", "key")),
            own.c.parent == parent,
            own.c.name == name,
        )
        equal = select(entries).where(like, entries.c.digest == found, ~of_own_key)
        with self._engine.connect() as connection:
            rows = connection.execute(equal.order_by(entries.c.id.desc()).limit(SAME))
            return found, [entry(row) for row in rows]

    def at(self, provider: str, key: str) -> list[tuple[str, Entry, bool]]:
        """Returns the entries of a key (files of one content may share it), each with the installation that made it.

        True beside one whose file was ordered to be deleted, and is not yet.
        """
        same = (errands.c[name] == entries.c[name] for name in ("host", "parent", "name"))
        ordered = errands.c.what == AFTER, type_coerce(errands.c.facts, Text).contains('"delete"')
        awaits = exists().where(*same, *ordered).label("awaits")
        with self._engine.connect() as connection:
            rows = connection.execute(
                select(entries, awaits).where(entries.c.provider == provider, entries.c.key == key)
            )
            return [(row.host, entry(row), row.awaits) for row in rows]

    def linked(self, one: Entry) -> Entry | None:
        """Returns the latest entry of this very content under the same name that has a link, at whichever provider."""
        parent, name = split(join(one.watch, one.path))
        same = (entries.c.parent == parent, entries.c.name == name, entries.c.size == one.size)
        known = entries.c.digest == one.digest, entries.c.digest.is_not(None), entries.c.url.is_not(None)
        with self._engine.connect() as connection:
            row = connection.execute(
                select(entries).where(*same, *known).order_by(entries.c.id.desc()).limit(1)
            ).first()
        return None if row is None else entry(row)

    def history(self, limit: int = 100, since: float = 0.0, *, before: tuple[float, int] | None = None) -> list[Entry]:
        """Returns the latest entries of ours, newest first, none stored before `since`.

        A further page begins `before` the time and id of the last one's end.
        """
        wanted = (entries.c.watch != "") & (entries.c.stored_at >= since)
        if before is not None:
            when, number = before
            older = (entries.c.stored_at < when) | (entries.c.id < number)
            wanted &= (entries.c.stored_at <= when) & older
        latest = (entries.c.stored_at.desc(), entries.c.id.desc())
        with self._engine.connect() as connection:
            rows = connection.execute(select(entries).where(wanted).order_by(*latest).limit(limit))
            return [entry(row) for row in rows]

    def history_in_pages(self, limit: int, since: float = 0.0) -> Iterator[list[Entry]]:
        """Yields the same, a few thousand at a time: of very many, few are in memory."""
        before = None
        while page := self.history(min(limit, PAGE), since, before=before):
            yield page
            limit -= len(page)
            before = page[-1].stored_at, page[-1].id


def _below(tree: _Tree, folder: str) -> ColumnElement[bool]:
    """Everything under a folder, however deep."""
    if not folder:
        return tree.shown
    first, end = inside(folder)
    return tree.shown & (tree.parent >= first) & (tree.parent < end)


def _has_below(connection: Connection, tree: _Tree, folder: str) -> bool:
    here = select(tree.parent).where(tree.shown, tree.parent == folder)
    deeper = select(tree.parent).where(_below(tree, folder))
    return bool(connection.execute(select(here.exists() | deeper.exists())).scalar())


def _file(connection: Connection, tree: _Tree, parent: str, name: str) -> Row[Any] | None:
    return connection.execute(
        select(tree.table)
        .where(tree.shown, tree.parent == parent, tree.name == name)
        .order_by(tree.table.c.id.desc())
        .limit(1)
    ).first()


def _folders(connection: Connection, tree: _Tree, folder: str) -> Iterator[str]:
    """Yields the folders of a folder, leaping from one to the next along the index.

    "a b" sorts between "a" and "a/x", so a leap goes over what is inside a folder only, and a name can come twice.
    """
    skip = len(folder) + 1 if folder else 0
    first, end = inside(folder) if folder else ("", None)
    which = tree.shown if end is None else tree.shown & (tree.parent < end)
    # One lower bound alone: with two, SQLite starts each leap at the folder's first row.
    beyond = tree.parent >= first
    known = set()
    while True:
        found = connection.execute(select(tree.parent).where(which, beyond).order_by(tree.parent).limit(1)).scalar()
        if found is None:
            return
        name, deeper, _ = found[skip:].partition("/")
        if name not in known:
            known.add(name)
            yield name
        # A name that is empty leads nowhere but back.
        beyond = tree.parent >= inside(join(folder, name))[1] if deeper and name else tree.parent > found


def _beside(node: Node, taken: Collection[str]) -> Node:
    """Returns a file under the first free name like its own, which a folder has."""
    name = f"{node.name}{HIDDEN}"
    while name in taken:
        name += HIDDEN
    return Node(name, node.file)


def _node(row: Row[Any], tree: _Tree) -> Node:
    if tree.table is jobs:
        return Node(row.name, waiting(row))
    return Node(row.key_name if tree.name is entries.c.key_name else row.name, entry(row))


def entry(row: Row[Any]) -> Entry:
    """Reads one row of `entries`."""
    return Entry(
        id=row.id,
        provider=row.provider,
        key=row.key,
        watch=row.watch,
        path=path_of(row),
        stamp=stamp_of(row),
        stored_at=row.stored_at,
        url=row.url,
        etag=row.etag,
        verified=row.verified,
        facts=row.facts,
        unlisted_at=row.unlisted_at,
        digest=row.digest,
    )


def waiting(row: Row[Any]) -> Waiting:
    """Reads one row of `jobs` as the outbox shows it."""
    return Waiting(
        id=row.id,
        provider=row.provider,
        watch=row.watch,
        path=path_of(row),
        stamp=stamp_of(row),
        state=State(row.state),
        sent=row.sent,
        created_at=row.created_at,
        key=row.key,
        error=row.error,
    )
