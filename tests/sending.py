"""One file through broker and transport, as the engine drives them, without journal and daemon.

What the engine makes of a verdict is done here by the test, or by `Sender.until_done` in the plainest way there is.
"""

import asyncio
import mimetypes
import os
import secrets
from collections.abc import Callable
from concurrent.futures import Future
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import msgspec
from msgspec.structs import replace

import recipes
from dumbwaiter.brokers import broker
from dumbwaiter.config.file import load
from dumbwaiter.errors import Reauth, Restart, Retry, Unfit, Verdict
from dumbwaiter.jobs.progress import Progress
from dumbwaiter.jobs.sent_bytes import Ranges, SentBytes
from dumbwaiter.jobs.threads import OpenFile, Threads
from dumbwaiter.jobs.upload import FileUpload
from dumbwaiter.model import Ask, Grant, Receipt, Stamp
from dumbwaiter.naming import propose
from dumbwaiter.net.http import Http
from dumbwaiter.providers.grants import freeze
from dumbwaiter.providers.provider import Provider
from dumbwaiter.transports import Transport, choose
from dumbwaiter_sandbox import Sandbox

ATTEMPTS = 30


@lru_cache(maxsize=4)
def _known(sandbox: Sandbox) -> dict[str, Any]:
    """The providers of the configuration that the sandbox wrote, and of the page of recipes."""
    return load(sandbox.config_path).provider | recipes.providers(sandbox)


class Sender:
    """A provider of a configuration, and the state that the journal would keep of one file."""

    def __init__(
        self, options: Any, path: Path, *, name: str | None = None, now: Callable[[], float] | None = None
    ) -> None:
        self.path = path
        self.name = name or os.fsdecode(path.name)
        self.fd = os.open(path, os.O_RDONLY)
        self.stamp = Stamp.of(os.fstat(self.fd))
        self.grant: Grant | None = None
        self.seed = secrets.token_hex(8)
        self.checkpoint: str | None = None
        self.sent = 0
        self.saved: list[tuple[str, int, int, int]] = []
        self.verdicts: list[Verdict] = []
        self.on_save: Callable[[], Any] = lambda: None
        self.transport: Transport | None = None
        self._ever = Ranges()
        self._unfit: set[str] = set()
        self.runner = asyncio.Runner()
        self.runner.run(self._make(options, {"clock": now} if now else {}))

    async def _make(self, options: Any, clock: dict[str, Any]) -> None:
        async def requested(count: int) -> None:
            pass

        self.http = Http(**clock)
        self.threads = Threads(1, 4)
        self.provider = Provider("test", broker(options), self.http, requested=requested, **clock)

    @classmethod
    def of(cls, vendors: Any, provider: str, path: Path, **arguments: Any) -> Self:
        """Takes a provider from the configuration that the sandbox wrote, or from the page of recipes."""
        changes = arguments.pop("changes", {})
        options = _known(vendors.sandbox)[provider]
        return cls(replace(options, **changes), path, **arguments)

    def close(self) -> None:
        self.threads.close()
        self.runner.run(self.http.close())
        self.runner.close()
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def ask(self) -> Ask:
        name = propose(self.name)
        key = self.grant.key if self.grant else None
        mime = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return Ask("w", name, name, self.stamp.size, mime, self.seed, held=key)

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    def obtain(self) -> Grant:
        """Asks for a grant unless there is one."""
        if self.grant is None:
            self.provider.health.again()  # a service may have asked to wait
            grant: Grant = self.run(self.provider.grants.obtain(self.ask))
            self.grant = grant
        return self.grant

    def attempt(self) -> Receipt:
        """Goes on once from where it is. Raises the verdict."""
        grant = self.obtain()
        receipt: Receipt = self.run(self._send(grant))
        return receipt

    async def _send(self, grant: Grant) -> Receipt:
        row = self.transport = choose(grant.ticket, self.stamp.size, self._unfit)
        upload: FileUpload = FileUpload(
            self.fd,
            self.stamp,
            threads=self.threads,
            ticket=grant.ticket,
            key=grant.key,
            ask=self.ask,
            checkpoint=msgspec.json.decode(self.checkpoint, type=row.checkpoint) if self.checkpoint else None,
            progress=Progress(SentBytes(self.stamp.size, self.sent if self.checkpoint else 0, self._ever), self._save),
            line=self.provider,
            confirm=lambda: asyncio.run_coroutine_threadsafe(
                self.provider.broker.confirm(grant, self.stamp.size, self.provider), self.runner.get_loop()
            ),
        )
        receipt, _ = await self.threads.run(lambda: upload.run(row.send), upload.abort, OpenFile(self.fd, ""))
        return receipt

    def _save(self, checkpoint: str, sent: int, more: int, again: int) -> "Future[None]":
        done: Future[None] = Future()
        self.checkpoint, self.sent = checkpoint, sent
        self.saved.append((checkpoint, sent, more, again))
        self.on_save()
        done.set_result(None)
        return done

    def restart(self) -> None:
        """Is a new process: the journal's texts are all that is left."""
        if self.grant is not None and self.transport is not None and self.transport.session:
            self.grant = self.run(self.provider.grants.restore(freeze(self.grant, self.transport), 0.0))
        self._ever = Ranges()

    def verdict(self) -> Verdict:
        """Goes on once and returns what it ended with, which must be a verdict."""
        try:
            receipt = self.attempt()
        except Verdict as verdict:
            self.take(verdict)
            return verdict
        raise AssertionError(f"it was sent: {receipt}")

    def take(self, verdict: Verdict) -> None:
        self.verdicts.append(verdict)
        match verdict:
            case Unfit():
                assert self.transport is not None
                self._unfit.add(self.transport.name)
                self.checkpoint, self.sent = None, 0
            case Restart():
                self.checkpoint, self.sent = None, 0
            case Reauth():
                assert self.grant is not None
                self.provider.grants.refuse(self.grant, self.ask, 0.0)
                before, self.grant = self.grant, None
                if self.obtain().key != before.key:
                    self.checkpoint, self.sent = None, 0

    def until_done(self) -> Receipt:
        """Obeys verdicts, without their waits, until the file is there."""
        for _ in range(ATTEMPTS):
            try:
                return self.attempt()
            except (Retry, Reauth, Restart) as verdict:
                self.take(verdict)
        raise AssertionError(f"not done after {ATTEMPTS} attempts: {self.verdicts}")

    def kinds(self) -> list[str]:
        return [type(verdict).__name__ for verdict in self.verdicts]
