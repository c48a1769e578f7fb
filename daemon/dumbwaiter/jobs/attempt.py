"""One job, one attempt: names the file, has it sent, and turns what is raised into the next transition.

What follows an error is `policy`'s to say, what it means in the journal `lifecycle`'s; nothing here knows a vendor.
"""

import asyncio
import os
import random
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import ExitStack
from hashlib import blake2b
from typing import Any, TypeVar

from msgspec.structs import replace

from dumbwaiter.errors import (
    Blocked,
    Changed,
    Conflict,
    Gone,
    JournalTrouble,
    Local,
    Offline,
    Paused,
    Reauth,
    Reject,
    Restart,
    Verdict,
)
from dumbwaiter.files.mime import mime_by_name, mime_of
from dumbwaiter.files.roots import hangs_with
from dumbwaiter.files.version import open_version
from dumbwaiter.jobs import duplicates
from dumbwaiter.jobs.context import Context
from dumbwaiter.jobs.endings import DONE, FAILED
from dumbwaiter.jobs.key_choice import KeyChoice
from dumbwaiter.jobs.sending import Sending
from dumbwaiter.jobs.threads import OpenFile
from dumbwaiter.jobs.unnoted import Stored, Version
from dumbwaiter.lifecycle import REPLACED
from dumbwaiter.model import MIB, Ask, FollowUp, Job, Receipt, State
from dumbwaiter.naming import propose, shown
from dumbwaiter.net.slices import Unreadable
from dumbwaiter.policy import AFTER_MAX, PAUSE, Again, Decision, Delay, Pause, Rejected, Superseded, decide
from dumbwaiter.providers.provider import Provider
from dumbwaiter.store.key_holders import Holder
from dumbwaiter.store.lease import LostLease

T = TypeVar("T")

IN_VAIN, IN_VAIN_MIN = 10, 64 * MIB  # times its size, and bytes: what a file that always begins anew may cost
HEARD = 3.0  # seconds that an answer is waited for although all is to end
RESENT_MAX = 2  # times its size, that a file which was stored in vain may have cost to be sent once more


class Attempt:
    """A leased job, from where it is to where it can get."""

    def __init__(self, context: Context, job: Job) -> None:
        self._context = context
        self._lease = context.lease(job)
        self._clock = context.clock
        self._ask = Ask(
            watch=job.watch,
            path=propose(job.path),
            key=propose(job.path),
            size=job.size,
            mime=mime_by_name(job.path),
            place=job.place,
            seed=blake2b(f"{job.created_at}/{job.id}".encode(), digest_size=12).hexdigest(),
        )
        self._version = Version.of(job)
        self._sending = Sending(context, job, self._ask)
        self._stored: Future[Holder | None] | None = None  # the commit of the receipt
        self._chance = 0  # of the provider's, when this try began
        self._again = 0
        self._failures = job.attempts  # in a row before this attempt, whatever progress it then makes
        self._watch = context.watch_of(job.watch)
        self._keys = KeyChoice(context, job)
        self._log = context.log.bind(job=job.id, path=job.place, provider=job.provider)

    @property
    def _job(self) -> Job:
        return self._sending.job

    @property
    def _question(self) -> tuple[Version, int]:
        """The vendor's next answer about a stored file: each that is noted counts as one attempt."""
        return self._version, self._job.attempts

    def _change(self, **changes: Any) -> None:
        self._sending.job = replace(self._sending.job, **changes)

    async def run(self) -> None:
        job = self._job
        if job.state is State.STORED:  # a receipt of it was noted, though the answer may have been lost
            self._context.unnoted.stored.pop(self._version, None)
        provider = self._context.providers.get(job.provider)
        if provider is None:
            gone = f'no provider named "{job.provider}" is configured'
            if job.receipt is None:
                await self._reject(gone)
            else:  # the file is there, and nobody can be asked for the rest
                await self._finish(FollowUp(job.receipt.with_facts(follow_up=gone)))
            return
        while True:
            self._chance = provider.health.chances
            try:
                if self._job.state is State.PENDING:
                    await self._bring(provider)
                async with provider.alone(provider.broker.together(self._ask)):
                    await self._follow_up(provider)
            except Paused:
                self._log.info("put aside until its provider and watch work again")
                await self.give_back()
                return
            except Verdict as verdict:
                if not await self._obey(verdict, provider):
                    return
            else:
                provider.health.well(self._clock())
                return

    async def give_back(self) -> None:
        """Ends the lease; another attempt goes on from here."""
        await self._context.journal.release(self._context.worker, self._job.id, resent=self._sending.wasted)

    async def _open(self) -> OpenFile:
        """Opens the version of the file that the job is about. Raises `Changed` when there is none any more."""
        job = self._job
        root = self._context.folder_of(job.watch)
        if root is None:
            raise Local(f'no watch named "{job.watch}" is configured')
        place = hangs_with(root, job.path)

        def look() -> tuple[int, str]:
            fd = open_version(root, job.path, job.stamp)
            try:
                return fd, mime_of(fd, self._ask.name)
            except OSError as error:
                os.close(fd)
                raise Local(f"the file cannot be read: {error.strerror}") from None

        try:
            fd, mime = await self._context.threads.look(place, look, lambda opened: os.close(opened[0]))
        except TimeoutError:
            raise Local(f"the folder {place} does not answer") from None
        except (Gone, Changed):
            if away := await asyncio.to_thread(self._context.away, job.watch):
                raise Local(away) from None  # another folder's files say nothing of this one's
            raise
        self._ask = replace(self._ask, mime=mime)
        return OpenFile(fd, place)

    async def _bring(self, provider: Provider) -> None:
        """Uploads the file, unless an earlier attempt did, and journals the receipt."""
        job = self._job
        if (stored := self._context.unnoted.stored.pop(self._version, None)) is not None:
            await self._store(provider, stored)
            return
        let_go = self._context.threads.let_go
        file = await self._open()
        held = ExitStack()
        held.callback(let_go, file)
        try:
            if self._may_link(provider) and (found := await duplicates.find(job, provider, file, self._context)):
                await self._store(provider, self._stored_as(provider, *found))
                self._log.info("linked", key=found[0].key, same_as=found[0].facts["same_as"])
                return
            self._ask = await self._keys.choose(provider, job, self._ask, file)
            if self._ask.named:
                self._change(proposed=self._ask.key)
            receipt, digest, more = await self._sending.send(provider, self._ask, file, held)
        except Changed:
            let_go(await self._open())  # says if nothing stands there any more
            raise
        except TimeoutError:
            raise Local(f"the folder {file.place} does not answer") from None
        except (OSError, Unreadable) as error:  # other troubles are verdicts
            raise Local(f"the file cannot be read: {getattr(error, 'strerror', error)}") from None
        finally:
            held.close()
        await self._store(provider, self._stored_as(provider, receipt, digest, more, self._sending.resent))
        self._log.debug("stored", key=receipt.key, size=job.size)

    def _may_link(self, provider: Provider) -> bool:
        job = self._job
        wanted = self._watch is not None and self._watch.duplicates == "link"
        return provider.broker.shares and wanted and job.size > 0 and job.key is None

    def _stored_as(self, provider: Provider, receipt: Receipt, digest: str, more: int = 0, resent: int = 0) -> Stored:
        """Returns what there is to journal once the provider has the file."""
        may_replace = self._ask.named and not self._ask.fresh
        given = receipt.key if provider.broker.names_late and receipt.key != self._job.key and not may_replace else None
        return Stored(receipt, digest, more, resent, given)

    async def _store(self, provider: Provider, stored: Stored) -> None:
        """Journals a receipt. Where the vendor is to be asked more, it is on the disk before that."""
        unnoted, version = self._context.unnoted, self._version

        def told(commit: Future[Holder | None]) -> None:
            if isinstance(commit.exception(), JournalTrouble):
                unnoted.stored[version] = stored

        receipt, given = stored.receipt, stored.given
        self._stored = self._lease.store(self._clock(), **stored._asdict())
        self._stored.add_done_callback(told)
        self._sending.wasted = self._sending.resent = 0
        if provider.broker.follows or given is not None:
            holder = await asyncio.shield(asyncio.wrap_future(self._stored))
            if holder is not None:  # asking for another key helps nothing: the answer would name this one too
                raise Reject(
                    f"the provider has {shown(holder.place)} as {shown(receipt.key)}, and names this file the same"
                )
        self._change(state=State.STORED, receipt=receipt, attempts=0)
        unnoted.followed.pop(self._question, None)  # it was about an earlier upload

    async def _follow_up(self, provider: Provider) -> None:
        """Does what is left at the vendor and catalogues the file, or puts that off."""
        question = self._question
        follow = self._context.unnoted.followed.pop(question, None) or await self._asked(provider)
        if follow is None:
            return
        now = self._clock()
        try:
            if follow.later is None:
                await self._finish(follow)
                return
            due_at = now + min(follow.later, AFTER_MAX)
            await self._lease.note(now, receipt=follow.receipt, due_at=due_at, error=follow.error)
        except JournalTrouble:
            self._context.unnoted.followed[question] = follow
            raise
        if follow.blocked:
            await self._block(provider, follow.error or "", now + PAUSE)

    async def _asked(self, provider: Provider) -> FollowUp | None:
        """Asks the vendor for the rest. Returns None where the file is to be sent again, which is journalled."""
        job = self._job
        assert job.receipt is not None
        try:
            if provider.broker.binds and await self._lease.is_outdone():
                raise Reject(REPLACED)  # it would take the newer one's place there
            asked = provider.broker.follow_up(self._ask, job.receipt, job.attempts, provider)
            follow = await (_heard(asked) if provider.broker.follows else asked)
        except (Reauth, Reject, Restart) as verdict:
            if isinstance(verdict, Restart) and await self._is_worth_resending():
                self._log.info("sent again", reason=str(verdict))
                now = self._clock()
                await self._lease.resend(now, due_at=now + verdict.after, error=str(verdict))
                return None
            if provider.broker.binds:
                raise Reject(str(verdict)) from None
            # The file is there; what could not be learned about it is told, and no reason to wait.
            follow = FollowUp(job.receipt.with_facts(follow_up=verdict))
        results = tuple(one.plain for one in follow.results)
        return replace(follow, receipt=follow.receipt.plain, results=results)

    async def _finish(self, follow: FollowUp) -> None:
        """Catalogues the file, and orders what its watch wants done then."""
        job, endings = self._job, self._context.endings
        receipt = endings.told(job, follow.receipt)
        orders = endings.of_done(job, receipt)
        now = self._clock()
        try:
            await self._lease.finish(now, receipt=receipt, results=follow.results, orders=orders)
        except LostLease:
            if self._stored is not None:
                self._stored.result()  # the journal's trouble came before
            raise
        self._context.tally.done(job.stamp.ctime_ns / 1e9, job.created_at, now)
        endings.ended(DONE, job.place, orders)
        if receipt.lacks:
            self._log.warning("not all is done at the provider", reason=receipt.lacks)
        self._log.info("done", key=receipt.key, verified=receipt.verified)

    async def _reject(self, sentence: str) -> None:
        """Gives the file up until a person acts."""
        job, endings = self._job, self._context.endings
        orders = endings.of_failed(job, sentence)
        if await self._lease.reject(self._clock(), error=sentence, orders=orders):
            endings.ended(FAILED, f"{job.place}: {sentence}", orders)

    async def _is_worth_resending(self) -> bool:
        """True while the file still is the version that was stored, and sending it has not cost too much already."""
        if self._job.resent >= RESENT_MAX * self._job.size:
            return False
        try:
            self._context.threads.let_go(await self._open())
        except Changed:
            return False
        return True

    async def _obey(self, verdict: Verdict, provider: Provider) -> bool:
        """Does what the policy makes of a verdict. Returns True if the attempt goes on at once."""
        if isinstance(verdict, Conflict):
            way = self._keys.conflict(self._ask, verdict)
            if way is None:
                self._sending.begin_anew(proposed=None, key=None, grant=None)
                return True
            verdict = way
        verdict, decision = self._decide(verdict, provider)
        self._context.tally.failed(self._job.provider, type(verdict).__name__)
        self._log.info("attempt ended", verdict=type(verdict).__name__, error=str(verdict))
        if isinstance(decision, Again):
            self._again += 1
            if decision.new_grant:
                self._change(grant=None)
            if decision.from_start:
                self._sending.begin_anew()
            return True
        await self._end(decision, verdict, provider)
        return False

    def _decide(self, verdict: Verdict, provider: Provider) -> tuple[Verdict, Decision]:
        """Returns what a verdict comes to after those before it, and what the policy makes of that."""
        if isinstance(verdict, Reauth | Restart):  # what was sent counts for nothing: it fails as often as before
            self._change(attempts=max(self._job.attempts, self._failures))
        job = self._job
        in_vain = job.resent + self._sending.wasted
        dear = in_vain >= max(IN_VAIN * job.size, IN_VAIN_MIN)
        if isinstance(verdict, Reauth) and self._sending.fresh and provider.health.refused(self._sending.asked_at):
            verdict = Blocked(f"{verdict}, as it did those before: see to the account")
        elif isinstance(verdict, Reauth | Restart) and dear:
            verdict = Reject(f"{verdict}; it was sent {in_vain // max(job.size, 1)} times in vain")
        decision = decide(
            verdict,
            job.attempts,
            self._clock(),
            random.random,
            fresh=self._sending.fresh,
            again=self._again,
            dear=dear and bool(self._sending.wasted),
        )
        return verdict, decision

    async def _end(self, decision: Decision, verdict: Verdict, provider: Provider) -> None:
        """Journals how the attempt ends."""
        sentence = str(verdict)
        match decision:
            case Delay() if isinstance(verdict, Offline) and provider.health.chances > self._chance:
                await self._delay(Delay(self._clock()), sentence)
            case Delay() if isinstance(verdict, Local):
                await self._delay(decision, sentence)
            case Delay():
                provider.health.failed(sentence, offline=isinstance(verdict, Offline), random=random.random())
                await self._delay(decision, sentence)
            case Pause():
                await self._block(provider, sentence, decision.until)
                await self._delay(Delay(self._clock()), sentence)
            case Rejected():
                await self._reject(sentence)
            case Superseded():
                if isinstance(verdict, Changed):
                    # First: who waits for the end of all must not find nothing left between the two.
                    self._context.changed(self._job, self._sending.seconds)
                await self._lease.supersede(
                    self._clock(),
                    reason=decision.reason,
                    resent=self._sending.wasted,
                )

    async def _block(self, provider: Provider, sentence: str, until: float) -> None:
        """Lets a provider rest whose account is refused, and tells a person once."""
        await provider.block(sentence, until, self._context.endings.attention)
        self._log.error("provider paused", error=sentence)

    async def _delay(self, decision: Delay, sentence: str) -> None:
        await self._lease.delay(
            self._clock(),
            due_at=decision.due_at,
            error=sentence,
            attempts=self._job.attempts + 1,
            new_grant=decision.new_grant,
            from_start=decision.from_start,
            resent=self._sending.wasted,
        )


async def _heard(work: Coroutine[Any, Any, T]) -> T:
    """Awaits what a vendor is asked; cancelled, for a few seconds all the same: it may cost, and its answer counts."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=HEARD)
        if not task.done():
            raise
        return task.result()
    finally:
        if not task.done():
            task.add_done_callback(lambda late: late.cancelled() or late.exception())
            task.cancel()
