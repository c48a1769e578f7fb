"""Which key a file gets, where its provider lets it be named: its rule's, or the first free one like it.

A key is journalled before its first byte, so no two files of one journal settle on the same. What becomes of a file
whose key is taken, by another of ours or by what only the provider knows, is for the watch's `on_conflict` to say.
"""

import asyncio
from functools import partial

from msgspec.structs import replace

from dumbwaiter.catalog import Catalog
from dumbwaiter.errors import Conflict, Reject, Retry, Skipped, Verdict
from dumbwaiter.files.digest import Digest
from dumbwaiter.jobs.context import Context
from dumbwaiter.jobs.threads import OpenFile
from dumbwaiter.keys import Subject, further
from dumbwaiter.model import Ask, Job
from dumbwaiter.naming import propose, shown
from dumbwaiter.providers.provider import Provider
from dumbwaiter.store.errands import ORIGINAL

TURN = 60.0  # seconds, at most, until a job looks again whether another one is done with the key


class KeyChoice:
    """The keys that one job may have."""

    def __init__(self, context: Context, job: Job) -> None:
        watch = context.watch_of(job.watch)
        self._context = context
        self._journal = context.journal
        self._lease = context.lease(job)
        self._template = watch.key if watch else None
        self._on_conflict = watch.on_conflict if watch else "rename"
        self._taken: set[str] = set()  # keys under which the provider has other content

    async def choose(self, provider: Provider, job: Job, ask: Ask, file: OpenFile) -> Ask:
        """Returns the ask with the key to ask for, by then the job's in the journal; unchanged where it may have none.

        Raises what `on_conflict` makes of a key that another file has.
        """
        if job.proposed is None and job.key is not None:
            return ask  # named by an earlier version of the program
        wanted, template = propose(job.path), self._template
        if template is not None:
            subject = Subject(job.watch, job.path, file.fd, job.created_at, ask.seed)
            wanted = await self._context.threads.read(file, lambda _: template.key(subject))
        wanted = provider.broker.key(wanted, named=template is not None) or ""
        if not wanted:
            return ask
        key = job.proposed or await self._free(wanted, provider.name, job, ask.seed, file)
        return replace(ask, key=key, named=True, fresh=self._on_conflict != "replace")

    def conflict(self, ask: Ask, conflict: Conflict) -> Verdict | None:
        """Returns what comes of other content at the provider under the key that was asked for; None: choose anew."""
        if not ask.named:
            return conflict
        if self._on_conflict == "rename":
            self._taken.add(ask.key)
            return None
        return self._refusal(conflict)

    def _refusal(self, conflict: Conflict) -> Verdict:
        match self._on_conflict:
            case "skip":
                return Skipped(f'skipped, by on_conflict = "skip": {conflict}')
            case "replace":
                return Reject(f"{conflict}; it lets nothing be replaced: choose another key")
        return Reject(f'refused, by on_conflict = "refuse": {conflict}')

    async def _free(self, wanted: str, provider: str, job: Job, seed: str, file: OpenFile) -> str:
        """Returns the first key that no other content has."""
        key: str | None = wanted
        digest, number = None, 0
        anyway = False
        while key is not None:
            if key not in self._taken:
                holder = await self._lease.propose(
                    self._context.clock(),
                    provider=provider,
                    key=key,
                    digest=digest,
                    anyway=anyway,
                )
                if holder is None:
                    return key
                if holder.done and holder.digest is not None and digest is None:
                    digest = await self._context.threads.read(file, partial(Digest().finish, file.fd, job.size))
                    continue
                if self._on_conflict != "rename":
                    if not holder.done:
                        after = min(TURN, 2.0 ** min(job.attempts, 6))
                        raise Retry(f"{shown(holder.place)} is being uploaded as {key}", after=after)
                    if self._on_conflict != "replace":
                        raise self._refusal(Conflict(f"{shown(holder.place)} is at the provider as {key}"))
                    if only := await self._only_copy(provider, key, job.place):
                        raise Reject(f"{only} is at the provider as {key} and not kept here: choose another key")
                    anyway = True
                    continue
            number += 1
            key = further(wanted, number, seed)
        raise Reject(f"{wanted} and all names like it are taken at the provider: give the file another name")

    async def _only_copy(self, provider: str, key: str, place: str) -> str | None:
        """Returns a file other than that of `place` which has a key and is not kept where it was, or will not be."""
        for host, entry, awaits in await asyncio.to_thread(Catalog(self._journal.reader).at, provider, key):
            own = host == self._journal.host
            watch = self._context.watch_of(entry.watch) if own else None
            goes = awaits if watch is None else watch.after == "delete"
            if (goes or ORIGINAL in entry.facts) and not (own and entry.place == place):
                return shown(entry.place)
        return None
