"""Which machine works under an installation's name, in a journal that machines share.

The name lies in the state folder, and a copy of that folder (an image of a machine, a backup put elsewhere) has it too:
two of one name would end each other's jobs. So whoever works gives signs of life, by the server's clock, and another
machine begins only after a silence.
"""

import os
from contextlib import suppress
from math import inf

from sqlalchemy import Connection, Float, cast, delete, extract, func, select

from dumbwaiter.errors import Exit, Failure
from dumbwaiter.store.database import Writer
from dumbwaiter.store.statements import insert
from dumbwaiter.store.tables import machines

SILENT = 120.0  # seconds after which another machine may go on: some signs of life, and a server that was away
TAKEN = (
    "another machine works on this journal under the name of this installation: if this state folder is a copy of its own, "
    "remove the file host from it; if it was moved here, stop the daemon there, or wait two minutes if that was cut off"
)


class Presence:
    """The signs of life of one installation."""

    def __init__(self, writer: Writer, host: str) -> None:
        self._writer = writer
        self._host = host
        self._machine = ""

    async def begin(self, state: str) -> None:
        """Gives the first sign, as whoever has that state folder. Raises `Failure` while another machine gives them."""
        self._machine = _machine(state)
        if not await self._sign(SILENT):
            raise Failure(TAKEN, Exit.TEMPORARY)

    async def goes_on(self) -> bool:
        """Gives another sign. Returns False when another machine has begun: nothing of the journal is ours any more."""
        return not self._machine or await self._sign(inf)

    async def end(self) -> None:
        """Another machine may begin at once."""
        if self._machine:
            mine = machines.c.host == self._host, machines.c.machine == self._machine
            await self._writer.call(lambda connection: connection.execute(delete(machines).where(*mine)))

    async def _sign(self, patience: float) -> bool:
        """Notes that this machine is at work, unless another one was less than so many seconds ago."""

        def work(connection: Connection) -> bool:
            # Two may begin at this very moment, and where there is no row there is none to lock.
            connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(self._host))))
            now = connection.execute(select(cast(extract("epoch", func.now()), Float))).scalar_one()
            of_host = select(machines).where(machines.c.host == self._host).with_for_update()
            other = connection.execute(of_host).first()
            if other is not None and other.machine != self._machine and now - other.seen_at < patience:
                return False
            sign = {"machine": self._machine, "seen_at": now}
            connection.execute(
                insert(connection.dialect.name, machines)
                .values(host=self._host, **sign)
                .on_conflict_do_update(index_elements=[machines.c.host], set_=sign)
            )
            return True

        return await self._writer.call(work)


def _machine(state: str) -> str:
    """Names this machine as nothing on a copy of its disk does: by its boot, and by where the state folder lies."""
    boot = ""
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    status = os.stat(state)
    return f"{boot} {status.st_dev}:{status.st_ino}"
