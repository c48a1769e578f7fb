"""Rows as the nouns of `model`. A stored path is split: its parent begins with the name of the watch."""

from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from dumbwaiter.model import Job, Receipt, Stamp, State
from dumbwaiter.naming import join, split


class _Listed(FunctionElement[int]):
    """The numbers in a JSON array, a row each."""

    inherit_cache = True


@compiles(_Listed)
def _in_sqlite(listed: _Listed, compiler: SQLCompiler, **options: Any) -> str:
    array = compiler.process(listed.clauses, **options)
    return f"(SELECT value FROM json_each({array}))"  # noqa: S608 - a parameter


@compiles(_Listed, "postgresql")
def _in_postgresql(listed: _Listed, compiler: SQLCompiler, **options: Any) -> str:
    array = compiler.process(listed.clauses, **options)
    return f"(SELECT value::bigint FROM json_array_elements_text(CAST({array} AS json)))"  # noqa: S608 - a parameter


def among(column: ColumnElement[Any], ids: Iterable[int]) -> ColumnElement[bool]:
    """Says that a column is one of these numbers, however many: a statement takes no more than 32,766 parameters."""
    return column.op("IN", is_comparison=True)(_Listed(f"[{','.join(map(str, ids))}]"))


def place_of(watch: str, path: str) -> dict[str, str]:
    """Returns the columns that say where a file is."""
    parent, name = split(path)
    return {"parent": join(watch, parent), "name": name}


def path_of(row: Row[Any]) -> str:
    """Reads the path below the watch."""
    return join(row.parent.partition("/")[2], row.name)


def stamp_of(row: Any) -> Stamp:
    """Reads the stamp in a row of `jobs` or `entries`."""
    return Stamp(row.inode, row.size, row.mtime_ns, row.ctime_ns)


def job(row: Row[Any]) -> Job:
    """Reads one row of `jobs`."""
    return Job(
        id=row.id,
        watch=row.watch,
        path=path_of(row),
        provider=row.provider,
        stamp=stamp_of(row),
        state=State(row.state),
        key=row.key,
        by_hand=row.by_hand,
        proposed=row.proposed,
        grant=row.grant,
        checkpoint=row.checkpoint,
        receipt=None if row.receipt is None else msgspec.convert(row.receipt, Receipt),
        digest=row.digest,
        sent=row.sent,
        resent=row.resent,
        attempts=row.attempts,
        due_at=row.due_at,
        leased=row.lease is not None,
        cut_off=row.lease is None and row.lease_until is not None,
        error=row.error,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
