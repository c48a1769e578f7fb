"""What a person has paused, in the journal: it rests over a restart too."""

from sqlalchemy import Connection, delete, select, true

from dumbwaiter.store.statements import insert
from dumbwaiter.store.tables import pauses
from dumbwaiter.store.writer import Writer


class Pauses:
    """The pauses of one installation."""

    def __init__(self, writer: Writer, host: str) -> None:
        self._writer = writer
        self._host = host

    async def begin(self, name: str, until: float | None) -> None:
        """Notes that a provider, a watch, or all ("") rest until then, or until `end`."""

        def work(connection: Connection) -> None:
            values = {"host": self._host, "name": name, "until": until}
            connection.execute(
                insert(connection.dialect.name, pauses)
                .values(values)
                .on_conflict_do_update(index_elements=[pauses.c.host, pauses.c.name], set_={"until": until})
            )

        await self._writer.call(work, durable=True)

    async def end(self, name: str | None) -> None:
        """Ends a pause; all of them with None."""

        def work(connection: Connection) -> None:
            chosen = true() if name is None else pauses.c.name == name
            connection.execute(delete(pauses).where(pauses.c.host == self._host, chosen))

        await self._writer.call(work, durable=True)

    async def all(self) -> dict[str, float | None]:
        """Returns until when what rests."""

        def work(connection: Connection) -> dict[str, float | None]:
            rows = connection.execute(select(pauses.c.name, pauses.c.until).where(pauses.c.host == self._host))
            return {row.name: row.until for row in rows}

        return await self._writer.call(work)
