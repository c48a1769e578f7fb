"""Entries in the database: what is at a provider, written in the commit that ends a job. `catalog` reads them."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Text, func, select, type_coerce, update

from dumbwaiter.model import Receipt, Stamp
from dumbwaiter.naming import join, key_path, split, split_suffix
from dumbwaiter.store.rows import stamp_of
from dumbwaiter.store.statements import CATALOGUE, DROP_OTHERS, OF_KEY_AT, OWN_AT, PASS_ON, STEP_ASIDE
from dumbwaiter.store.tables import CHANNEL, IS_CURRENT, IS_SHOWN, entries, jobs
from dumbwaiter.store.writer import Writer


class Entries:
    """The entries that one installation makes."""

    def __init__(self, writer: Writer, host: str) -> None:
        self._writer = writer
        self._host = host

    def add(self, connection: Connection, file: Any, receipt: Receipt, now: float, *, current: bool = True) -> None:
        """Catalogues what a receipt says of a file (a row of `jobs` or `entries`), in the transaction at hand.

        What is not `current` is a version that a newer one came before: it takes no place, and is found by its key.
        """
        name, stamp = file.name, stamp_of(file)
        if receipt.label:
            name = _name_of_result(connection, file, receipt.label)
            stamp = Stamp(0, receipt.size or 0, int(now * 1e9), 0)  # no file here ever has it
        place = {"of_parent": file.parent, "of_name": name}
        if current:
            _clear_place(connection, place, receipt)
        elif OF_KEY_AT.first(connection, {**place, "of_provider": file.provider, "of_key": receipt.key}) is not None:
            return  # the newer version is the very same object
        key_parent, key_name = split(join(file.provider, key_path(receipt.key)))
        values = {
            "host": self._host,
            "provider": file.provider,
            "key": receipt.key,
            "key_parent": key_parent,
            "key_name": key_name,
            "watch": file.watch,
            "parent": file.parent,
            "name": name,
            "current": current,
            **stamp._asdict(),
            "digest": None if receipt.label else file.digest,
            "etag": receipt.etag,
            "url": receipt.url,
            "verified": receipt.verified,
            "facts": receipt.facts,
            "stored_at": now,
            "unlisted_at": None,
        }
        others = {"of_provider": file.provider, "of_key": receipt.key, "of_digest": values["digest"]}
        DROP_OTHERS.run(connection, others)
        CATALOGUE.run(connection, values)
        if connection.dialect.name == "postgresql":  # mounts hear it when the commit is there
            connection.execute(select(func.pg_notify(CHANNEL, "")))

    async def siblings(self, provider: str, place: str, fact: str, value: str) -> dict[str, Receipt]:
        """Returns, by place, what `provider` has of the folder of `place` ("WATCH/path") with this fact.

        A file that is catalogued stands with that version, another one with what is stored of it.
        """
        folder = split(place)[0]

        def work(connection: Connection) -> dict[str, Receipt]:
            stored = connection.execute(
                select(jobs.c.name, jobs.c.receipt).where(
                    IS_SHOWN,
                    jobs.c.parent == folder,
                    jobs.c.provider == provider,
                    _having(jobs.c.receipt, fact, value),  # which only what is stored has
                )
            )
            found = {join(folder, row.name): msgspec.convert(row.receipt, Receipt) for row in stored}
            catalogued = connection.execute(
                select(entries)
                .where(
                    IS_CURRENT,
                    entries.c.parent == folder,
                    entries.c.provider == provider,
                    _having(entries.c.facts, fact, value),
                )
                .order_by(entries.c.id)
            )
            return found | _by_place(catalogued)

        return await self._writer.call(work)

    async def of_size(self, provider: str, size: int, fact: str, value: str) -> dict[str, Receipt]:
        """Returns, by place, the catalogued files of a provider that have this size and this fact."""
        question = select(entries).where(
            IS_CURRENT,
            entries.c.provider == provider,
            entries.c.size == size,
            _having(entries.c.facts, fact, value),
        )
        return await self._writer.call(lambda connection: _by_place(connection.execute(question)))

    async def amend(
        self, id_: int, now: float, facts: Mapping[str, str | None], *, unless: str = "", result: Receipt | None = None
    ) -> bool:
        """Adds facts to a catalogued file (None takes one away) and a result beside it, on the disk when it returns.

        False, and nothing is done, when the file has the fact `unless` already, or is in the catalog no more.
        """

        def work(connection: Connection) -> bool:
            row = connection.execute(select(entries).where(entries.c.id == id_).with_for_update()).first()
            if row is None or unless in row.facts:
                return False
            merged = {name: value for name, value in {**row.facts, **facts}.items() if value is not None}
            connection.execute(update(entries).where(entries.c.id == id_).values(facts=merged))
            if result is not None:
                self.add(connection, row, result, now, current=row.current)
            return True

        return await self._writer.call(work, durable=True)


def _name_of_result(connection: Connection, file: Any, label: str) -> str:
    """Returns what a result is called that the provider made of a file: one of the owner's keeps its name."""
    stem, suffix = split_suffix(file.name)
    name = f"{stem}.{label}{suffix}"
    taken = OWN_AT.first(connection, {"of_parent": file.parent, "of_name": name}) is not None
    return _aside(name) if taken else name


def _clear_place(connection: Connection, place: Mapping[str, str], receipt: Receipt) -> None:
    """Has what stands at a place give way to what comes there."""
    passed = PASS_ON.first(connection, place)
    if passed is not None and passed.inode == 0 and not receipt.label:  # what was made of another file
        STEP_ASIDE.run(connection, {"entry": passed.id, "aside": _aside(place["of_name"])})
    elif passed is not None and passed.key != receipt.key:
        _pass_on_results(connection, place["of_parent"], place["of_name"], passed.key)


def _pass_on_results(connection: Connection, parent: str, name: str, key: str) -> None:
    """Takes what was made of the object `key` from beside the file that is another one now."""
    stem = split_suffix(name)[0]
    made = _having(entries.c.facts, "of", key)
    beside = (entries.c.parent == parent) & (entries.c.name > f"{stem}.") & (entries.c.name < f"{stem}/")
    connection.execute(update(entries).where(IS_CURRENT, beside, entries.c.inode == 0, made).values(current=False))


def _having(column: Any, fact: str, value: str) -> ColumnElement[bool]:
    """True for a column of JSON in which a fact stands."""
    told = msgspec.json.encode({fact: value}).decode()[1:-1]
    return type_coerce(column, Text).contains(told, autoescape=True)


def _by_place(rows: Iterable[Any]) -> dict[str, Receipt]:
    return {join(row.parent, row.name): Receipt(row.key, row.etag, row.url, row.verified, row.facts) for row in rows}


def _aside(name: str) -> str:
    """Returns what a result is called where a file of the owner's has its name."""
    stem, suffix = split_suffix(name)
    return f"{stem}-2{suffix}"
