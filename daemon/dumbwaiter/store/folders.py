"""What the journal knows of the files in a folder. Any thread may ask: each answer is one short query."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, and_, delete, func, or_, select

from dumbwaiter.lifecycle import UNSENT
from dumbwaiter.model import Stamp, State
from dumbwaiter.naming import inside, join
from dumbwaiter.store.errands import TAKEN_AWAY
from dumbwaiter.store.rows import stamp_of
from dumbwaiter.store.statements import insert
from dumbwaiter.store.tables import jobs, mounted, surveyed
from dumbwaiter.store.writer import Writer


class Known(NamedTuple):
    """What the journal knows of the latest version of a path."""

    id: int
    stamp: Stamp
    state: State
    digest: str | None

    def may_be(self, stamp: Stamp, after: str) -> bool:
        """True when only a look at the content of a file with that stamp can tell whether the journal has it.

        Under another mtime only where files are kept: whatever takes one away may be about to, and knows it by its mtime.
        One of the content of a file that was taken away is another file: it may be the last copy, and is sent.
        """
        if self.state is not State.DONE or self.digest is None:
            return False
        if after != "keep" and self.stamp.inode == TAKEN_AWAY:
            return False
        return self.stamp.same_but_touched(stamp) or (after == "keep" and self.stamp.size == stamp.size)


class Surveyed(NamedTuple):
    """A folder whose every file the journal knows, as the digest says it was."""

    folder: str  # below the watch
    files: int
    digest: bytes


class Folders:
    """The folders of one installation, in the journal that `engine` reads."""

    def __init__(self, engine: Engine, host: str) -> None:
        self._engine = engine
        self._host = host

    def known(self, watch: str, folder: str, provider: str, names: Sequence[str] | None = None) -> dict[str, Known]:
        """Returns, by file name, the latest version that a provider should have of each file, or of those named.

        A version that was gone before it was sent, or not asked for then, is not known: seen again, it is wanted.
        """
        latest = select(func.max(jobs.c.id)).where(
            jobs.c.host == self._host,
            jobs.c.parent == join(watch, folder),
            jobs.c.provider == provider,
            or_(jobs.c.state != State.SUPERSEDED, jobs.c.error.is_(None), jobs.c.error.not_in(UNSENT)),
        )
        if names is not None:  # of a hundred thousand, perhaps
            latest = latest.where(jobs.c.name.in_(names))
        columns = (jobs.c.name, jobs.c.id, *(jobs.c[field] for field in Stamp._fields), jobs.c.state, jobs.c.digest)
        query = select(*columns).where(jobs.c.id.in_(latest.group_by(jobs.c.name)))
        with self._engine.connect() as connection:
            rows = connection.execute(query)
            return {row.name: Known(row.id, stamp_of(row), State(row.state), row.digest) for row in rows}

    def digests(self, watch: str, folders: Iterable[str]) -> dict[str, bytes]:
        """Returns the digests noted for those of the folders whose files were all known."""
        skip = len(watch) + 1
        parents = [join(watch, folder) for folder in folders]
        query = select(surveyed.c.parent, surveyed.c.digest).where(
            surveyed.c.host == self._host, surveyed.c.parent.in_(parents)
        )
        with self._engine.connect() as connection:
            return {parent[skip:]: bytes(digest) for parent, digest in connection.execute(query)}

    def surveyed(self, watch: str) -> tuple[int, int]:
        """Returns how many folders of a watch have a note, and how many files these hold."""
        query = select(func.count(), func.coalesce(func.sum(surveyed.c.files), 0)).where(self._below(watch))
        with self._engine.connect() as connection:
            row = connection.execute(query).one()
        return int(row[0]), int(row[1])

    def noted(self, watch: str, after: str | None, limit: int) -> list[str]:
        """Returns the next folders that have a note, in the order of their names."""
        query = select(surveyed.c.parent).where(self._below(watch)).order_by(surveyed.c.parent).limit(limit)
        if after is not None:
            query = query.where(surveyed.c.parent > join(watch, after))
        skip = len(watch) + 1
        with self._engine.connect() as connection:
            return [parent[skip:] for parent in connection.execute(query).scalars()]

    def mounted(self) -> set[str]:
        """Returns the watched folders at which a file system was mounted when they were last seen."""
        with self._engine.connect() as connection:
            return set(connection.execute(select(mounted.c.path).where(mounted.c.host == self._host)).scalars())

    def _below(self, watch: str) -> Any:
        first, end = inside(watch)
        deeper = and_(surveyed.c.parent >= first, surveyed.c.parent < end)
        return and_(surveyed.c.host == self._host, or_(surveyed.c.parent == watch, deeper))


class Notes:
    """What is noted of the folders of one installation."""

    def __init__(self, writer: Writer, host: str) -> None:
        self._writer = writer
        self._host = host

    async def survey(self, watch: str, folders: Sequence[Surveyed]) -> None:
        """Notes folders whose every file is known, so that the next rescan passes them by while they stay as they are."""

        def work(connection: Connection) -> None:
            statement = insert(connection.dialect.name, surveyed)
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=[surveyed.c.host, surveyed.c.parent],
                    set_={"files": statement.excluded.files, "digest": statement.excluded.digest},
                ),
                [
                    {"host": self._host, "parent": join(watch, one.folder), "files": one.files, "digest": one.digest}
                    for one in folders
                ],
            )

        await self._writer.call(work)

    async def unsurvey(self, watch: str, folders: Sequence[str]) -> None:
        """Forgets the notes on folders that are no more."""

        def work(connection: Connection) -> None:
            parents = [join(watch, folder) for folder in folders]
            connection.execute(delete(surveyed).where(surveyed.c.host == self._host, surveyed.c.parent.in_(parents)))

        await self._writer.call(work)

    async def mount(self, path: str, is_mounted: bool) -> None:
        """Notes whether a file system is mounted at a watched folder."""

        def work(connection: Connection) -> None:
            if is_mounted:
                connection.execute(
                    insert(connection.dialect.name, mounted).values(host=self._host, path=path).on_conflict_do_nothing()
                )
            else:
                connection.execute(delete(mounted).where(mounted.c.host == self._host, mounted.c.path == path))

        await self._writer.call(work)
