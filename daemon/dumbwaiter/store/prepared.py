"""Statements that run for every file or chunk: compiled once per database, and run by its driver itself.

What SQLAlchemy looks at anew at each execution costs several times what SQLite does for one row.
"""

from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from enum import Enum
from typing import Any

from sqlalchemy import Connection, Dialect

from dumbwaiter.store.database import driver_of, trouble


class Prepared:
    """A statement whose parameters are all named, each one value: an IN over a list cannot be in it.

    Every method raises `JournalTrouble` for an error of the database.
    """

    def __init__(self, build: Callable[[str], Any]) -> None:
        """`build` makes the statement for a kind of database, by its name."""
        self._build = build
        self._ready: dict[str, _Ready] = {}

    def run(self, connection: Connection, values: Mapping[str, Any]) -> int:
        """Executes and returns how many rows it touched."""
        ready = self._for(connection.dialect)
        try:
            return int(driver_of(connection).execute(ready.text, ready.given(values)).rowcount)
        except connection.dialect.loaded_dbapi.Error as error:
            raise trouble(error, "written") from error

    def many(self, connection: Connection, rows: Iterable[Mapping[str, Any]]) -> int:
        """Executes once for each, and returns how many rows that touched."""
        ready = self._for(connection.dialect)
        try:
            with closing(driver_of(connection).cursor()) as cursor:
                cursor.executemany(ready.text, [ready.given(values) for values in rows])
                return int(cursor.rowcount)
        except connection.dialect.loaded_dbapi.Error as error:
            raise trouble(error, "written") from error

    def first(self, connection: Connection, values: Mapping[str, Any]) -> Any:
        """Executes and returns the first row as a named tuple of what the statement returns, None without one."""
        ready = self._for(connection.dialect)
        try:
            row = driver_of(connection).execute(ready.text, ready.given(values)).fetchone()
        except connection.dialect.loaded_dbapi.Error as error:
            raise trouble(error, "written") from error
        return None if row is None else ready.read(row)

    def _for(self, dialect: Dialect) -> "_Ready":
        ready = self._ready.get(dialect.name)
        if ready is None:
            ready = self._ready[dialect.name] = _Ready(self._build(dialect.name), dialect)
        return ready


class _Ready:
    """A statement for one database, with what turns values into its own and back."""

    def __init__(self, statement: Any, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        self.text = str(compiled)
        # SQLite's driver takes a detour for every string that is not exactly one.
        self._fixed = {
            name: value.value if isinstance(value, Enum) else value for name, value in compiled.params.items()
        }
        self._order: list[str] | None = compiled.positiontup
        kinds = {name: bind.type.dialect_impl(dialect) for bind, name in compiled.bind_names.items()}
        self._writes = [
            (name, convert) for name, kind in kinds.items() if (convert := kind.bind_processor(dialect)) is not None
        ]
        columns = list(statement.exported_columns)
        self._reads = [column.type.dialect_impl(dialect).result_processor(dialect, None) for column in columns]
        self._row = namedtuple("Returned", [column.key for column in columns])  # type: ignore[misc]  # noqa: PYI024

    def given(self, values: Mapping[str, Any]) -> Any:
        given = {**self._fixed, **values}
        for name, convert in self._writes:
            given[name] = convert(given[name])
        return given if self._order is None else [given[name] for name in self._order]

    def read(self, row: Iterable[Any]) -> Any:
        return self._row(
            *[value if read is None else read(value) for read, value in zip(self._reads, row, strict=True)]
        )
