"""Which file has a key at a provider: no two files of one journal are to have the same."""

from typing import NamedTuple

from sqlalchemy import Connection, func, select

from dumbwaiter.naming import join
from dumbwaiter.store.statements import ENTRY_AT, FILE_OF, JOB_AT, OTHER_ENTRY_AT


class Holder(NamedTuple):
    """The file that has a key."""

    place: str  # watch and path
    digest: str | None  # None: not known
    done: bool  # False: its upload is not done


def holder(connection: Connection, provider: str, key: str, id_: int) -> Holder | None:
    """Returns which other file has a key, whether it is done or on its way; `id_`: the job that asks."""
    _lock_keys(connection, provider)
    asked = {"of_provider": provider, "of_key": key, "but": id_}
    if (row := JOB_AT.first(connection, asked)) is not None:  # before what it may be about to replace
        return Holder(join(row.parent, row.name), row.digest, done=False)
    entry = ENTRY_AT.first(connection, asked)
    return None if entry is None else Holder(join(entry.parent, entry.name), entry.digest, done=True)


def other_holder(connection: Connection, key: str, id_: int) -> Holder | None:
    """Returns which other file has the key that a provider gave to this job's."""
    own = FILE_OF.first(connection, {"job": id_})
    if own is None:
        return None  # as the step will find
    _lock_keys(connection, own.provider)
    asked = {"of_provider": own.provider, "of_key": key}
    row = JOB_AT.first(connection, {**asked, "but": id_})
    if row is not None and (row.parent, row.name) != (own.parent, own.name):  # else it is an older version
        return Holder(join(row.parent, row.name), row.digest, done=False)
    row = OTHER_ENTRY_AT.first(connection, {**asked, "of_parent": own.parent, "of_name": own.name})
    return None if row is None else Holder(join(row.parent, row.name), row.digest, done=True)


def _lock_keys(connection: Connection, provider: str) -> None:
    """Has other installations, which may ask at this very moment, wait for the end of the transaction."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(provider))))
