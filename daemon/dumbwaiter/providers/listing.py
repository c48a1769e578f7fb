"""A provider's own list in the catalog: what others put there, and what of ours it shows no more.

A walk reads the list page by page. Each page is one short transaction, which also notes where to go on: a walk that
breaks off, at whatever moment, is resumed there. Only a whole walk, at its end, concludes anything from absence: what
is none of ours leaves the catalog, what is ours stays and is marked. Nothing is ever uploaded or deleted for it.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, Float, bindparam, case, delete, func, or_, select, update

from dumbwaiter.journal import Journal
from dumbwaiter.model import Listed
from dumbwaiter.naming import join, key_path, split
from dumbwaiter.providers.provider import Provider
from dumbwaiter.store.statements import insert
from dumbwaiter.store.tables import entries, listings

RESUMABLE = 86400.0  # seconds after its begin; an older walk says too little of today
GROUP = 500  # rows in one transaction of the end
_OURS = entries.c.watch != ""


class Outcome(Struct):
    """What came of a walk, since it was begun or resumed."""

    provider: str
    listed: int = 0
    new: int = 0  # to the catalog
    gone: int = 0  # from the catalog: none of ours
    unlisted: int = 0  # of ours, newly missing in the list
    whole: bool = True  # False: not read to its end, or the list changed meanwhile: absence says nothing


class _Walk(Struct):
    started_at: float
    cursor: str | None = None
    whole: bool = True


async def walk(
    journal: Journal, provider: Provider, outcome: Outcome, *, clock: Callable[[], float] = time.time
) -> None:
    """Reads a provider's whole list into the catalog and counts in `outcome`. Raises the broker's verdicts.

    After a verdict, or a crash, the next call goes on where this one came to.
    """
    write = journal.writer.call
    outcome.whole = False
    under_way = await write(lambda connection: _begin(connection, provider.name, clock()))
    while True:
        page = await provider.broker.listing(under_way.cursor, provider)
        rows = {one.key: _row(journal.host, provider.name, one, under_way.started_at) for one in page.items}
        under_way.cursor, under_way.whole = page.cursor, under_way.whole and page.whole
        outcome.new += await write(lambda connection: _keep(connection, provider.name, rows, under_way))  # noqa: B023
        outcome.listed += len(rows)
        if page.cursor is None:
            break
    outcome.whole = under_way.whole
    after: int | None = 0 if under_way.whole else None
    while after is not None:
        after, gone, unlisted = await write(
            lambda connection: _sweep(connection, provider.name, under_way.started_at, after or 0, clock())  # noqa: B023
        )
        outcome.gone += gone
        outcome.unlisted += unlisted
    await write(lambda connection: _end(connection, provider.name, under_way.started_at, clock()), durable=True)


async def begun_at(journal: Journal, provider: str) -> float | None:
    """Returns when the latest walk that came to its end was begun; None when none did."""

    def work(connection: Connection) -> float | None:
        return connection.execute(
            select(listings.c.started_at).where(listings.c.provider == provider, listings.c.ended_at.is_not(None))
        ).scalar()

    return await journal.writer.call(work)


def _begin(connection: Connection, provider: str, now: float) -> _Walk:
    row = connection.execute(select(listings).where(listings.c.provider == provider)).first()
    if row is not None and row.ended_at is None and 0 <= now - row.started_at < RESUMABLE:
        return _Walk(row.started_at, row.cursor, row.whole)
    values = {"provider": provider, "started_at": now, "cursor": None, "whole": True, "ended_at": None}
    connection.execute(
        insert(connection.dialect.name, listings)
        .values(values)
        .on_conflict_do_update(index_elements=[listings.c.provider], set_=values)
    )
    return _Walk(now)


def _row(host: str, provider: str, one: Listed, started_at: float) -> dict[str, Any]:
    parent, name = split(join(provider, key_path(one.key)))
    return {
        "host": host,
        "provider": provider,
        "key": one.key,
        "key_parent": parent,
        "key_name": name,
        "watch": "",
        "parent": "",
        "name": "",
        "current": False,
        "inode": 0,
        "size": one.size,
        "mtime_ns": int(one.changed_at * 1e9),
        "ctime_ns": 0,
        "etag": one.etag,
        "url": one.url,
        "verified": "",
        "facts": one.facts,
        "stored_at": one.stored_at,
        "listed_at": started_at,
    }


def _keep(connection: Connection, provider: str, rows: Mapping[str, dict[str, Any]], under_way: _Walk) -> int:
    """Writes a page, and where the next one begins; returns how many of its keys the catalog did not have."""
    here = (entries.c.provider == provider) & entries.c.key.in_(rows)
    ours = set(connection.execute(select(entries.c.key).where(here, _OURS)).scalars())
    others = [row for key, row in rows.items() if key not in ours]
    before = connection.execute(select(func.count()).where(here, ~_OURS)).scalar_one() if rows else 0
    if ours:
        # Of what is ours, our receipt says more than the list does; only a link may have been missing.
        connection.execute(
            update(entries)
            .where(_OURS, entries.c.provider == provider, entries.c.key == bindparam("met"))
            .values(
                url=func.coalesce(entries.c.url, bindparam("link")),
                listed_at=_later(bindparam("at", type_=Float)),
                unlisted_at=None,
            ),
            [{"met": key, "link": rows[key]["url"], "at": rows[key]["listed_at"]} for key in ours],
        )
    if others:
        statement = insert(connection.dialect.name, entries)
        told = {name: statement.excluded[name] for name in _TOLD}
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=[entries.c.provider, entries.c.key, entries.c.parent, entries.c.name],
                set_={**told, "listed_at": _later(statement.excluded.listed_at)},
            ),
            others,
        )
    connection.execute(
        update(listings)
        .where(*_of_walk(provider, under_way.started_at))
        .values(cursor=under_way.cursor, whole=under_way.whole)
    )
    return len(others) - before


def _later(at: Any) -> Any:
    """Another installation may walk the same list; the later walk counts."""
    return case((entries.c.listed_at > at, entries.c.listed_at), else_=at)


_TOLD = ("size", "mtime_ns", "etag", "url", "facts", "stored_at")


def _sweep(
    connection: Connection, provider: str, started_at: float, after: int, now: float
) -> tuple[int | None, int, int]:
    """Takes some of what the walk did not meet. Returns the id to go on after, and how many were removed and marked."""
    missed = (entries.c.provider == provider) & (func.coalesce(entries.c.listed_at, 0.0) < started_at)
    ids = (
        connection.execute(
            select(entries.c.id)
            .where(
                missed,
                entries.c.id > after,
                entries.c.unlisted_at.is_(None),
                or_(~_OURS, entries.c.stored_at < started_at),  # what we stored meanwhile may be on an earlier page
            )
            .order_by(entries.c.id)
            .limit(GROUP)
        )
        .scalars()
        .all()
    )
    if not ids:
        return None, 0, 0
    chosen = missed & entries.c.id.in_(ids)
    gone = connection.execute(delete(entries).where(chosen, ~_OURS)).rowcount
    unlisted = connection.execute(update(entries).where(chosen, _OURS).values(unlisted_at=now)).rowcount
    return ids[-1], gone, unlisted


def _end(connection: Connection, provider: str, started_at: float, now: float) -> None:
    ended = update(listings).where(*_of_walk(provider, started_at)).values(ended_at=now, cursor=None)
    connection.execute(ended)


def _of_walk(provider: str, started_at: float) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """One walk of a provider's list: another installation may have ended it, and begun the next."""
    return listings.c.provider == provider, listings.c.started_at == started_at
