"""What an installation counts over its whole life: bytes sent, bytes sent again, grants requested."""

from collections import Counter

from sqlalchemy import Connection

from dumbwaiter.store.statements import COUNT
from dumbwaiter.store.writer import Writer


class Counters:
    """The counters of one installation. A commit writes each once, however many of its members count."""

    def __init__(self, writer: Writer, host: str) -> None:
        self._writer = writer
        self._host = host
        self._amounts: Counter[str] = Counter()
        self._of: object = None  # the transaction that these are counted in
        writer.before_commit = self._write

    def add(self, connection: Connection, **amounts: int) -> None:
        """Counts in the transaction at hand."""
        if connection.get_transaction() is not self._of:  # an earlier one was rolled back
            self._amounts.clear()
            self._of = connection.get_transaction()
        self._amounts.update(amounts)

    async def count(self, **amounts: int) -> None:
        """Counts in a transaction of its own."""
        await self._writer.call(lambda connection: self.add(connection, **amounts))

    def _write(self, connection: Connection) -> None:
        if connection.get_transaction() is self._of:
            rows = [
                {"host": self._host, "name": name, "value": amount} for name, amount in self._amounts.items() if amount
            ]
            if rows:
                COUNT.many(connection, rows)
            self._amounts.clear()
