"""The queries for due jobs, in the order in which jobs are claimed."""

from typing import Any

from sqlalchemy import ColumnElement, Select, and_, bindparam, func, or_, select

from dumbwaiter.model import State
from dumbwaiter.store.tables import IS_BEGUN, IS_BY_HAND, IS_OPEN, jobs

# No pause and no closed window holds a job up; what the remote has already is finished at any hour.
_MAY_GO = (
    jobs.c.host == bindparam("of_host"),
    jobs.c.provider.not_in(bindparam("paused", expanding=True)),
    or_(jobs.c.watch.not_in(bindparam("closed", expanding=True)), jobs.c.by_hand, jobs.c.state == State.STORED),
)
NEXT_DUE = select(func.min(jobs.c.due_at)).where(IS_OPEN, jobs.c.lease.is_(None), *_MAY_GO)


def _due(which: ColumnElement[bool], due_at: ColumnElement[float], order: ColumnElement[float]) -> Select[Any]:
    return (
        select(jobs)
        .where(which, due_at <= bindparam("now"), jobs.c.size <= bindparam("largest"), *_MAY_GO)
        # One's own lease never ends for oneself: whoever asks knows what it has in hand.
        .where(
            or_(
                jobs.c.lease.is_(None), and_(jobs.c.lease_until < bindparam("now"), jobs.c.lease != bindparam("worker"))
            )
        )
        .order_by(order, jobs.c.id)
        .limit(bindparam("most"))
        .with_for_update(skip_locked=True)
    )


LARGEST = (1 << 63) - 1
# Claimed in this order: what a person ordered, what was begun, all else. Each query has an index.
DUE = (
    _due(IS_BY_HAND, jobs.c.due_at, jobs.c.due_at),
    _due(IS_BEGUN, jobs.c.due_at + 0, jobs.c.grant_until),  # the sum keeps SQLite from walking all that is due
    _due(IS_OPEN, jobs.c.due_at, jobs.c.due_at),
)
