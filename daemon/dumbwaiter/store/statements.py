"""What runs for every file or chunk, prepared. Parameters of a WHERE are called so that none is a column's name."""

from importlib import import_module
from typing import Any

from sqlalchemy import Column, ColumnElement, Table, and_, bindparam, case, delete, exists, func, or_, select, update

from dumbwaiter.lifecycle import REPLACED, TRANSITIONS, UNSENT, Event, sources
from dumbwaiter.model import Stamp, State
from dumbwaiter.store.prepared import Prepared
from dumbwaiter.store.tables import IS_CURRENT, IS_OPEN, counters, entries, jobs

# What the end of a job needs to know of it: for the catalog, and for what is ordered with it.
OF_FILE = tuple(jobs.c[name] for name in ("id", "watch", "parent", "name", "provider", "digest", *Stamp._fields))


def insert(dialect: str, table: Table) -> Any:
    """Returns the INSERT of a database; both know ON CONFLICT, each in a class of its own."""
    return import_module(f"sqlalchemy.dialects.{dialect}").insert(table)  # the other one is a heavy thing to load


def _given(table: Table, *left_out: str) -> dict[str, Any]:
    return {column.name: bindparam(column.name) for column in table.columns if column.name not in left_out}


def _event(event: Event, *given: str, returns: tuple[Column[Any], ...] = (jobs.c.id,), **reckoned: Any) -> Prepared:
    """Returns the UPDATE of a transition: `given` columns take what is passed, `reckoned` ones what is said here."""
    (state,) = sources(event)
    values = {name: bindparam(name) for name in (*given, "updated_at")} | reckoned
    if TRANSITIONS[state, event] is not state:  # else the indexes over states would be written for nothing
        values["state"] = TRANSITIONS[state, event]
    return Prepared(
        lambda _dialect: (
            update(jobs)
            .where(jobs.c.id == bindparam("job"), jobs.c.lease == bindparam("worker"), jobs.c.state == state)
            .values(values)
            .returning(*returns)
        )
    )


_SAME_KEY = jobs.c.key.is_not_distinct_from(bindparam("key"))
NAME = _event(
    Event.NAME,
    *("key", "grant", "grant_until", "lease_until"),
    proposed=func.coalesce(bindparam("given", type_=jobs.c.proposed.type), jobs.c.proposed),
    checkpoint=case((_SAME_KEY, jobs.c.checkpoint)),
    sent=case((_SAME_KEY, jobs.c.sent), else_=0),
)
PROPOSE = _event(Event.NAME, "proposed", "lease_until", key=None, grant=None, checkpoint=None, sent=0)
ADVANCE = _event(
    Event.ADVANCE,
    *("checkpoint", "sent", "lease_until"),
    resent=jobs.c.resent + bindparam("more_resent"),
    attempts=case((bindparam("sent") > jobs.c.sent, 0), else_=jobs.c.attempts),
    error=None,
)
STORE = _event(
    Event.STORE,
    *("receipt", "key", "digest", "lease_until"),
    proposed=func.coalesce(bindparam("given", type_=jobs.c.proposed.type), jobs.c.proposed),
    sent=jobs.c.size,
    resent=jobs.c.resent + bindparam("more_resent"),
    grant=None,
    checkpoint=None,
    attempts=0,
    error=None,
)
FINISH = _event(Event.FINISH, "receipt", returns=OF_FILE, attempts=0, error=None, lease=None, lease_until=None)

_VERSION = ("host", "parent", "name", "provider", *Stamp._fields)
_FIRST = (*_VERSION, "watch", "due_at", "created_at", "updated_at")


def _enqueue(dialect: str) -> Any:
    statement = insert(dialect, jobs).values(
        {name: bindparam(name) for name in _FIRST}
        | {"state": State.PENDING, "sent": 0, "resent": 0, "attempts": 0, "by_hand": False}
    )
    return statement.on_conflict_do_nothing(index_elements=[jobs.c[name] for name in _VERSION]).returning(
        jobs.c.id.label("made"), *(jobs.c[name].label(f"of_{name}") for name in ("host", "parent", "name", "provider"))
    )


# Makes a job of a version that is not known; else returns nothing.
ENQUEUE = Prepared(_enqueue)

_later = jobs.alias()
_OF_THE_FILE = and_(
    *(_later.c[name] == jobs.c[name] for name in ("host", "parent", "name", "provider")), _later.c.id > jobs.c.id
)
# Drops the job of a version that was gone, or that another one had replaced: it stands there again, and is the newest.
DROP_OUTLIVED = Prepared(
    lambda _dialect: (
        delete(jobs)
        .where(
            *(jobs.c[name] == bindparam(f"of_{name}") for name in _VERSION),
            or_(
                (jobs.c.state == State.SUPERSEDED) & or_(*(jobs.c.error == reason for reason in (*UNSENT, REPLACED))),
                (jobs.c.state == State.DONE)
                & exists().where(_OF_THE_FILE, *(_later.c.error.is_distinct_from(reason) for reason in UNSENT)),
            ),
        )
        .returning(jobs.c.id)
    )
)


def _newer(is_so: ColumnElement[bool]) -> Prepared:
    return Prepared(
        lambda _dialect: (
            select(_later.c.id).join(jobs, _OF_THE_FILE).where(jobs.c.id == bindparam("than"), is_so).limit(1)
        )
    )


# A newer version of the same file: one that is done already, and one that was not given up.
NEWER_DONE = _newer(_later.c.state == State.DONE)
NEWER = _newer(_later.c.state != State.SUPERSEDED)

_SAME_FILE: tuple[ColumnElement[bool], ...] = (
    jobs.c.host == bindparam("of_host"),
    jobs.c.parent == bindparam("of_parent"),
    jobs.c.name == bindparam("of_name"),
    jobs.c.provider == bindparam("of_provider"),
)
SUPERSEDE_OLDER = Prepared(
    lambda _dialect: (
        update(jobs)
        .where(
            *_SAME_FILE,
            jobs.c.id != bindparam("made"),
            or_(*(jobs.c.state == state for state in sources(Event.SUPERSEDE))),
            jobs.c.lease.is_(None),
        )
        .values(state=State.SUPERSEDED, grant=None, checkpoint=None, error=REPLACED, updated_at=bindparam("now"))
    )
)
OLDER = select(jobs.c.id, jobs.c.sent).where(
    *_SAME_FILE, jobs.c.state == State.SUPERSEDED, jobs.c.updated_at == bindparam("now")
)

# Who has a key: a file that is catalogued, or one on its way.
ENTRY_AT = Prepared(
    lambda _dialect: (
        select(entries.c.parent, entries.c.name, entries.c.digest)
        .where(entries.c.provider == bindparam("of_provider"), entries.c.key == bindparam("of_key"))
        .limit(1)
    )
)
FILE_OF = Prepared(
    lambda _dialect: select(jobs.c.parent, jobs.c.name, jobs.c.provider).where(jobs.c.id == bindparam("job"))
)
# An entry of any file but one that has a key.
OTHER_ENTRY_AT = Prepared(
    lambda _dialect: (
        select(entries.c.parent, entries.c.name, entries.c.digest)
        .where(
            entries.c.provider == bindparam("of_provider"),
            entries.c.key == bindparam("of_key"),
            or_(entries.c.parent != bindparam("of_parent"), entries.c.name != bindparam("of_name")),
        )
        .limit(1)
    )
)
JOB_AT = Prepared(
    lambda _dialect: (
        select(jobs.c.parent, jobs.c.name, jobs.c.digest)
        .where(
            IS_OPEN,
            jobs.c.provider == bindparam("of_provider"),
            jobs.c.proposed == bindparam("of_key"),
            jobs.c.id != bindparam("but"),
        )
        .limit(1)
    )
)

_HERE: tuple[ColumnElement[bool], ...] = (
    entries.c.parent == bindparam("of_parent"),
    entries.c.name == bindparam("of_name"),
    IS_CURRENT,
)
PASS_ON = Prepared(
    lambda _dialect: (
        update(entries).where(*_HERE).values(current=False).returning(entries.c.id, entries.c.key, entries.c.inode)
    )
)
# A file of the owner's goes before what a provider made of another one; that has no inode.
OWN_AT = Prepared(lambda _dialect: select(entries.c.id).where(*_HERE, entries.c.inode != 0).limit(1))
OF_KEY_AT = Prepared(
    lambda _dialect: (
        select(entries.c.id)
        .where(*_HERE, entries.c.provider == bindparam("of_provider"), entries.c.key == bindparam("of_key"))
        .limit(1)
    )
)
STEP_ASIDE = Prepared(
    lambda _dialect: (
        update(entries).where(entries.c.id == bindparam("entry")).values(name=bindparam("aside"), current=True)
    )
)
# An entry never shows other content than it was made for.
DROP_OTHERS = Prepared(
    lambda _dialect: delete(entries).where(
        entries.c.provider == bindparam("of_provider"),
        entries.c.key == bindparam("of_key"),
        entries.c.digest.is_distinct_from(bindparam("of_digest")) | (entries.c.watch == ""),
    )
)


def _catalogue(dialect: str) -> Any:
    statement = insert(dialect, entries).values(_given(entries, "id", "listed_at"))
    place = [entries.c.provider, entries.c.key, entries.c.parent, entries.c.name]
    values = {column.name: statement.excluded[column.name] for column in entries.columns if column.name != "id"}
    return statement.on_conflict_do_update(index_elements=place, set_=values)


CATALOGUE = Prepared(_catalogue)


def _count(dialect: str) -> Any:
    statement = insert(dialect, counters).values(_given(counters))
    return statement.on_conflict_do_update(
        index_elements=[counters.c.host, counters.c.name], set_={"value": counters.c.value + statement.excluded.value}
    )


COUNT = Prepared(_count)
