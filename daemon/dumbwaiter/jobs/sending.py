"""The tries of one attempt to get its file to the provider: a permission, a transport, and what that sent in vain."""

import asyncio
import time
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import replace

from dumbwaiter.errors import Conflict, Paused, Reauth, Reject, Retry, Unfit, Verdict
from dumbwaiter.files.digest import Digest
from dumbwaiter.jobs.context import Context
from dumbwaiter.jobs.progress import Progress
from dumbwaiter.jobs.sent_bytes import Ranges, SentBytes
from dumbwaiter.jobs.threads import OpenFile
from dumbwaiter.jobs.upload import IN_FLIGHT, FileUpload
from dumbwaiter.model import Ask, Grant, Job, Receipt
from dumbwaiter.naming import shown
from dumbwaiter.net.http import SKEW
from dumbwaiter.providers.grants import OVER, freeze
from dumbwaiter.providers.provider import Provider
from dumbwaiter.transports import Transport, choose

LATE_MAX = 3  # times in one attempt that a permission may end while a file of which nothing counts by then is sent


class Sending:
    """A leased job's way to its receipt. `job` is what the journal has of it by now, or is about to have."""

    def __init__(self, context: Context, job: Job, ask: Ask) -> None:
        self.job = job if job.checkpoint else replace(job, sent=0)
        self.fresh = False  # the grant in use was asked for by this attempt
        self.asked_at = 0.0  # when
        self.wasted = 0  # bytes that were sent and that the journal does not know of
        self.resent = 0  # those of them that were sent a second time by a try that is over
        self.seconds = 0.0  # that the tries took
        self._context = context
        self._lease = context.lease(job)
        self._clock = context.clock
        self._loop = asyncio.get_running_loop()
        self._ask = ask
        self._ever = Ranges()  # that were sent, by this attempt or an earlier one
        self._ever.add(0, self.job.sent)
        self._sends = 0
        self._late = 0  # times that the grant ended before the file was through
        self._unfit: dict[str, str] = {}  # transports that the provider does not take, and why

    async def send(self, provider: Provider, ask: Ask, file: OpenFile, held: ExitStack) -> tuple[Receipt, str, int]:
        """Makes one try. Returns the receipt, the digest of the whole, and the bytes that the journal does not know of.

        `held` closes the file as long as no thread has it. Raises what comes of the try.
        """
        job = self.job
        self._ask = ask
        grant = await self._grant(provider, file)
        try:
            transport = choose(grant.ticket, job.size, self._unfit)
        except Reject as other:
            raise Reject("; ".join((*self._unfit.values(), str(other)))) from None
        if job.cut_off and (job.key is not None or self.job.checkpoint) and not self._sends:
            self._ever.add(0, self.job.sent + self._at_risk(transport))
        self._sends += 1
        point = self._point(transport)
        sent = SentBytes(job.size, self.job.sent, self._ever)
        upload = self._upload(provider, file, grant, point, Progress(sent, self._save))
        begun, begun_at = self.job.sent, self._clock()

        def send() -> tuple[Receipt, str, float]:
            self._must_not_rest()  # it may have waited for its thread
            started = time.monotonic()
            return *upload.run(transport.send), time.monotonic() - started

        held.pop_all()
        began = time.monotonic()
        try:
            receipt, digest, seconds = await self._context.threads.run(send, upload.abort, file, last=True)
            provider.learn_rate(job.size - begun, seconds)
            return receipt.plain, digest, sent.unsaved
        except Reauth as refusal:
            raise self._refused(provider, grant, refusal, begun_at) from None
        except Unfit as unfit:
            self._unfit[transport.name] = str(unfit)
            raise
        finally:
            self.seconds += time.monotonic() - began
            self.wasted = self.resent + sent.wasted
            self.resent += sent.resent

    def _upload(self, provider: Provider, file: OpenFile, grant: Grant, point: Any, progress: Progress) -> FileUpload:
        """Returns the doors for one try, from what the journal knows to be at the provider."""
        job = self.job
        return FileUpload(
            file.fd,
            job.stamp,
            threads=self._context.threads,
            ticket=grant.ticket,
            key=grant.key,
            ask=self._ask,
            checkpoint=point,
            progress=progress,
            rest=self._must_not_rest,
            line=provider,
            confirm=lambda: asyncio.run_coroutine_threadsafe(
                provider.broker.confirm(grant, job.size, provider), self._loop
            ),
        )

    def _refused(self, provider: Provider, grant: Grant, refusal: Reauth, begun_at: float) -> Verdict:
        """Forgets a grant that was refused, and returns what that means for the file."""
        if provider.grants.refuse(grant, replace(self._ask, held=self.job.key), begun_at):
            return Retry(OVER)
        if begun_at < (grant.expires_at or 0.0) <= self._clock() + SKEW:
            self.fresh = False  # it ended in use, which says nothing of the account
            self._late += not self.job.sent
            if self._late >= LATE_MAX:
                return Reject(f"{refusal}; it takes longer to send than the provider's permission lasts")
        if self.fresh:
            provider.abreast.broke()  # one part tells whether the next permission is taken
        return refusal

    def _point(self, transport: Transport) -> Any:
        """Returns from where the transport goes on; None where it begins."""
        checkpoint = self.job.checkpoint
        try:
            return msgspec.json.decode(checkpoint, type=transport.checkpoint) if checkpoint else None
        except msgspec.DecodeError:  # of another way to send, before the configuration or the program was another one
            self.begin_anew()
            return None

    def begin_anew(self, **changes: Any) -> None:
        """Forgets what was acknowledged: it counts for nothing any more."""
        self.job = replace(self.job, checkpoint=None, sent=0, **changes)

    def _at_risk(self, transport: Transport) -> int:
        """Returns how much more than was acknowledged may have been sent when an earlier attempt was cut off."""
        match transport.at_risk:
            case "chunk":
                return IN_FLIGHT
            case "parts":
                return IN_FLIGHT * self._context.threads.parts
        return self.job.size

    async def _grant(self, provider: Provider, file: OpenFile) -> Grant:
        """Returns a grant whose key is journalled: the stored one while it lasts, else a new one."""
        job = self.job
        self.fresh = False
        needed = provider.seconds_for(job.size - job.sent)
        if job.grant is not None and (grant := await provider.grants.restore(job.grant, needed)) is not None:
            return grant
        asked_at = self._clock()
        grant = await provider.grants.obtain(replace(self._ask, held=job.key), needed)
        self.fresh, self.asked_at = True, asked_at
        transport = choose(grant.ticket, job.size)
        stored = freeze(grant, transport) if transport.session else None
        if grant.key != job.key:
            self.begin_anew()  # another object
        if (grant.key, stored) != (job.key, job.grant):
            await self._name(provider, grant, stored, file)
        self.job = replace(self.job, key=grant.key, grant=stored)
        return grant

    async def _name(self, provider: Provider, grant: Grant, stored: str | None, file: OpenFile) -> None:
        """Journals the key of a grant. Raises `Retry` or `Conflict` where the provider gave it to another file before."""
        job, digest = self.job, None
        given = None if self._ask.named or grant.key == job.key else grant.key
        while True:
            holder = await self._lease.name(
                self._clock(),
                key=grant.key,
                grant=stored,
                grant_until=grant.expires_at,
                given=given,
                digest=digest,
            )
            if holder is None:
                return
            if digest is not None or holder.digest is None:
                break
            digest = await self._context.threads.read(file, partial(Digest().finish, file.fd, job.size))
        if provider.broker.mints:
            raise Retry(
                f"the provider gave the permission of {shown(holder.place)} once more: a cache may stand between"
            )
        raise Conflict(f"the provider has {shown(holder.place)} as {shown(given or '')}, and names this file the same")

    def _save(self, checkpoint: str, sent: int, more: int, resent: int) -> "Future[None]":
        """Runs in the upload's thread; the loop looks at what is noted here when that has ended."""
        progress = sent > self.job.sent
        if progress:
            self._context.providers[self.job.provider].health.well(self._clock())
        attempts = 0 if progress else self.job.attempts
        self.job = replace(self.job, checkpoint=checkpoint, sent=sent, attempts=attempts)
        commit = self._lease.advance(
            self._clock(),
            checkpoint=checkpoint,
            sent=sent,
            more=more,
            resent=resent,
        )
        commit.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._context.moved))
        return commit

    def _must_not_rest(self) -> None:
        """Raises `Paused` while a person or the time of day keeps the provider or the watch from working."""
        now = self._clock()
        outside = not self.job.by_hand and self.job.watch in self._context.closed(now)
        if outside or self.job.provider in self._context.resting(now):
            raise Paused("it rests")
