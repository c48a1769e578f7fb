"""What the journal says of the work: counts, totals, and lists of jobs and errands."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, Engine, Select, Table, and_, func, literal, select, union_all

from dumbwaiter.facts import AFTER, COUNTERS, IN_NEED, LEFT, Counts, OpenCounts, errand_facts, job_facts
from dumbwaiter.model import Job, Stamp, State
from dumbwaiter.naming import join, split
from dumbwaiter.store.database import HOST
from dumbwaiter.store.errands import Errand, errand
from dumbwaiter.store.rows import among, job, path_of, place_of
from dumbwaiter.store.tables import (
    IS_AFTER,
    IS_CURRENT,
    IS_FAILED,
    IS_OPEN,
    IS_SHOWN,
    IS_SUPERSEDED,
    counters,
    entries,
    errands,
    jobs,
    surveyed,
)

LISTED = 1000  # jobs in one answer
_GIVEN_UP = (IS_FAILED, errands.c.due_at.is_(None))


def totals(engine: Engine) -> dict[str, int]:
    """Returns the number of jobs in each state, of those that need a person, of files to put away, and the counters."""
    # Most jobs are done, and those that are not have indexes; all of them are counted faster than read.
    counts = union_all(
        select(jobs.c.state, func.count()).where(IS_SHOWN, *_mine(engine, jobs)).group_by(jobs.c.state),
        select(literal(State.SUPERSEDED.value), func.count())
        .select_from(jobs)
        .where(IS_SUPERSEDED, *_mine(engine, jobs)),
        select(literal(State.DONE.value), func.count()).select_from(jobs).where(*_mine(engine, jobs)),
    )
    amounts = (
        select(counters.c.name, func.sum(counters.c.value)).where(*_mine(engine, counters)).group_by(counters.c.name)
    )
    found = dict.fromkeys((*(state.value for state in State), *COUNTERS), 0) | _pairs(engine, counts)
    found[State.DONE] -= sum(found[state] for state in State if state is not State.DONE)
    return found | {IN_NEED: count_needy(engine), AFTER: _to_put_away(engine)} | _pairs(engine, amounts)


def _mine(engine: Engine, table: Table) -> list[ColumnElement[bool]]:
    host = engine.get_execution_options().get(HOST)
    return [] if host is None else [table.c.host == host]


def count_open(engine: Engine) -> OpenCounts:
    """Returns how many jobs have work left, and what is left to send."""
    left = func.sum(jobs.c.size - jobs.c.sent).filter(jobs.c.state == State.PENDING)
    with engine.connect() as connection:
        rows = connection.execute(
            select(jobs.c.watch, jobs.c.provider, func.count(), func.coalesce(left, 0))
            .where(IS_OPEN, *_mine(engine, jobs))
            .group_by(jobs.c.watch, jobs.c.provider)
        ).all()
    counted = OpenCounts(Counter(), Counter(), sum(int(row[3]) for row in rows))
    for watch, provider, count, _ in rows:
        counted.by_watch[watch] += count
        counted.by_provider[provider] += count
    return counted


def files_by_watch(engine: Engine) -> dict[str, int]:
    """Returns how many files of each watch are at their provider."""
    query = select(entries.c.watch, func.count()).where(IS_CURRENT, *_mine(engine, entries))
    return _pairs(engine, query.group_by(entries.c.watch))


def shared_watches(engine: Engine, watches: Iterable[str]) -> list[str]:
    """Returns the watches of which another installation on the same database has files: it has one of that name."""
    host = engine.get_execution_options().get(HOST)
    if host is None:
        return []
    with engine.connect() as connection:
        return [
            watch
            for watch in watches
            if connection.execute(
                select(entries.c.id).where(IS_CURRENT, entries.c.watch == watch, entries.c.host != host).limit(1)
            ).first()
        ]


def count_unfinished(engine: Engine) -> dict[str, int]:
    """Returns what is left to do, of the totals: all of it found by indexes."""
    query = select(jobs.c.state, func.count()).where(IS_SHOWN, *_mine(engine, jobs)).group_by(jobs.c.state)
    found = dict.fromkeys((State.PENDING, State.STORED, State.REJECTED), 0) | _pairs(engine, query)
    return found | {IN_NEED: found[State.REJECTED] + _count(engine, _undone(engine)), AFTER: _to_put_away(engine)}


def _pairs(engine: Engine, query: Select[Any] | CompoundSelect[Any]) -> dict[str, int]:
    with engine.connect() as connection:
        return {name: int(count) for name, count in connection.execute(query)}


def seen_watches(engine: Engine, names: Collection[str]) -> set[str]:
    """Returns which of these watches ever had a job, or a folder that was gone through."""
    had = select(jobs.c.watch).where(*_mine(engine, jobs)).distinct()
    gone_through = select(surveyed.c.parent).where(*_mine(engine, surveyed), surveyed.c.parent.in_(names))
    with engine.connect() as connection:
        return {name for query in (had, gone_through) for name in connection.execute(query).scalars()}


def open_jobs(engine: Engine) -> list[Job]:
    """Returns jobs with work left, those at work first, then by when they are due."""
    return _jobs(engine, IS_OPEN, jobs.c.lease.is_(None), jobs.c.due_at, jobs.c.id)


def rejected(engine: Engine) -> list[Job]:
    """Returns jobs that need a person."""
    return _jobs(engine, and_(IS_SHOWN, jobs.c.state == State.REJECTED), jobs.c.updated_at.desc())


def jobs_of(engine: Engine, watch: str, path: str) -> list[Job]:
    """Returns all jobs of one file, newest first."""
    where = and_(*(jobs.c[column] == value for column, value in place_of(watch, path).items()))
    return _jobs(engine, where, jobs.c.id.desc())


def former_place(engine: Engine, path: str, stamp: Stamp, watches: Collection[str]) -> tuple[str, str] | None:
    """Returns watch and inner path under which a local file, as it is, was known to a watch that is none of `watches`."""
    folder, name = split(path)
    with engine.connect() as connection:
        had = connection.execute(select(jobs.c.watch).where(*_mine(engine, jobs)).distinct()).scalars()
        names = folder.strip("/").split("/")
        inner = ["/".join(names[count:]) for count in range(len(names) + 1)]
        parents = [join(watch, below) for watch in had if watch not in watches for below in inner]
        version = (jobs.c.inode == stamp.inode, jobs.c.size == stamp.size, jobs.c.mtime_ns == stamp.mtime_ns)
        query = select(jobs).where(jobs.c.parent.in_(parents), jobs.c.name == name, *version, *_mine(engine, jobs))
        row = connection.execute(query.order_by(jobs.c.id.desc()).limit(1)).first()
    return None if row is None else (row.watch, path_of(row))


def jobs_by_id(engine: Engine, ids: Sequence[int]) -> list[Job]:
    """Returns the job with each of these ids that there is, in their order."""
    found = {one.id: one for one in _jobs(engine, among(jobs.c.id, ids), limit=len(ids))}
    return [found[id_] for id_ in ids if id_ in found]


def _jobs(engine: Engine, where: ColumnElement[bool], *order: Any, limit: int = LISTED) -> list[Job]:
    with engine.connect() as connection:
        rows = connection.execute(select(jobs).where(where, *_mine(engine, jobs)).order_by(*order).limit(limit))
        return [job(row) for row in rows]


def needy(engine: Engine) -> list[dict[str, Any]]:
    """Returns the jobs that need a person, as JSON shows them: rejected ones, and those whose errand was given up.

    Of each at most `LISTED`, the latest.
    """
    others = _jobs(engine, _undone(engine), jobs.c.id.desc())
    given_up = _errands(engine, *_GIVEN_UP, among(errands.c.job, [one.id for one in others]), limit=None)
    why = {one.job: f"{one.what}: {one.error}" for one in given_up}
    found = [job_facts(one) for one in rejected(engine)]
    return found + [job_facts(one) | {"error": why[one.id]} for one in others if one.id in why]


def _undone(engine: Engine) -> ColumnElement[bool]:
    given_up = select(errands.c.job).where(*_GIVEN_UP, *_mine(engine, errands))
    return and_(jobs.c.state != State.REJECTED, jobs.c.id.in_(given_up))


def count_needy(engine: Engine) -> int:
    """Returns how many jobs need a person, also where they are more than `needy` returns."""
    return _count(engine, and_(IS_SHOWN, jobs.c.state == State.REJECTED)) + _count(engine, _undone(engine))


def _to_put_away(engine: Engine) -> int:
    return _count(engine, IS_AFTER, errands)


def _count(engine: Engine, where: ColumnElement[bool], table: Table = jobs) -> int:
    query = select(func.count()).select_from(table).where(where, *_mine(engine, table))
    with engine.connect() as connection:
        return int(connection.execute(query).scalar_one())


def failed_errands(engine: Engine) -> list[dict[str, Any]]:
    """Returns what was to be done once a job ended and failed, the latest first, as JSON shows it.

    Of more than `LISTED` rather those that were given up: the others are tried again without a person.
    """
    given_up = _errands(engine, *_GIVEN_UP)
    waiting = _errands(engine, IS_FAILED, errands.c.due_at.is_not(None), limit=LISTED - len(given_up))
    return [errand_facts(one) for one in sorted((*given_up, *waiting), key=lambda one: -one.id)]


def errands_of(engine: Engine, watch: str, path: str) -> list[dict[str, Any]]:
    """Returns likewise all that failed of one file."""
    place = [errands.c[column] == value for column, value in place_of(watch, path).items()]
    return [errand_facts(one) for one in _errands(engine, IS_FAILED, *place, limit=None)]


def latest_errands(engine: Engine, places: Collection[tuple[str, str]]) -> dict[tuple[str, str], Errand]:
    """Returns the latest errand that failed of each of these files, by watch and path."""
    query = select(errands).where(IS_FAILED, *_mine(engine, errands)).order_by(errands.c.id)
    with engine.connect() as connection:
        failed = map(errand, connection.execute(query))
        return {place: one for one in failed if (place := (one.watch, one.path)) in places}


def _errands(engine: Engine, *where: ColumnElement[bool], limit: int | None = LISTED) -> list[Errand]:
    """Returns errands, the latest first."""
    query = select(errands).where(*where, *_mine(engine, errands)).order_by(errands.c.id.desc()).limit(limit)
    with engine.connect() as connection:
        return [errand(row) for row in connection.execute(query)]


def count_all(engine: Engine) -> Counts:
    """Counts all."""
    counted = count_open(engine)
    return Counts(counted, files_by_watch(engine), totals(engine) | {LEFT: counted.bytes_left})


def work_to_list(engine: Engine, *, jobs: bool = True) -> dict[str, Any]:
    """Returns the jobs and errands that `status --json` names one by one."""
    shown_jobs = (*open_jobs(engine), *rejected(engine)) if jobs else ()
    return {"jobs": [job_facts(one) for one in shown_jobs], "errands": failed_errands(engine)}
