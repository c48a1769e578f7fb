"""Which machine works under an installation's name, in a journal that machines share.

The name lies in the state folder, and a copy of that folder (an image of a machine, a backup put elsewhere) has it too:
two of one name would end each other's jobs. So whoever works gives signs of life, by the server's clock, and another
machine begins only after a silence.
"""

import asyncio
import os
from contextlib import suppress
from math import inf

from sqlalchemy import Connection, Float, cast, delete, extract, func, select

from dumbwaiter import log
from dumbwaiter.errors import Exit, Failure
from dumbwaiter.store.statements import insert
from dumbwaiter.store.tables import machines
from dumbwaiter.store.writer import Writer

SILENT = 75.0  # seconds after which another machine may go on: two signs of life; systemd waits 90 for a start
LOOK = 3.0  # seconds between two looks whether another one is alive
TAKEN = (
    "another machine is at work on this journal under the name of this installation: stop the daemon there if this state "
    "folder was moved here; if it is a copy that is to stay one, remove the file host from it"
)


class Presence:
    """The signs of life of one installation."""

    def __init__(self, writer: Writer, host: str) -> None:
        self._writer = writer
        self._host = host
        self._machine = ""

    async def begin(self, state: str) -> None:
        """Gives the first sign, as whoever has that state folder. Raises `Failure` when another machine gives one meanwhile.

        A sign that is not followed by another one may be this machine's own, before it lost its power.
        """
        self._machine = _machine(state)
        first = latest = await self._sign(SILENT)
        if first is not None:
            log.get("presence").info("waiting whether another machine gives a sign of life", seconds=SILENT)
        while latest is not None:
            if latest != first:
                raise Failure(TAKEN, Exit.TEMPORARY)
            await asyncio.sleep(LOOK)
            latest = await self._sign(SILENT)

    async def goes_on(self) -> bool:
        """Gives another sign. Returns False when another machine has begun: nothing of the journal is ours any more."""
        return not self._machine or await self._sign(inf) is None

    async def end(self) -> None:
        """Another machine may begin at once."""
        if self._machine:
            mine = machines.c.host == self._host, machines.c.machine == self._machine
            await self._writer.call(lambda connection: connection.execute(delete(machines).where(*mine)))

    async def _sign(self, patience: float) -> float | None:
        """Notes that this machine is at work; returns when another one was, where that is less than so many seconds ago."""

        def work(connection: Connection) -> float | None:
            # Two may begin at this very moment, and where there is no row there is none to lock.
            connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(self._host))))
            now = connection.execute(select(cast(extract("epoch", func.now()), Float))).scalar_one()
            of_host = select(machines).where(machines.c.host == self._host).with_for_update()
            other = connection.execute(of_host).first()
            if other is not None and other.machine != self._machine and now - other.seen_at < patience:
                return float(other.seen_at)
            sign = {"machine": self._machine, "seen_at": now}
            connection.execute(
                insert(connection.dialect.name, machines)
                .values(host=self._host, **sign)
                .on_conflict_do_update(index_elements=[machines.c.host], set_=sign)
            )
            return None

        return await self._writer.call(work)


def _machine(state: str) -> str:
    """Names this machine as nothing on a copy of its disk does: by its boot, and by where the state folder lies."""
    boot = ""
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    status = os.stat(state)
    return f"{boot} {status.st_dev}:{status.st_ino}"
