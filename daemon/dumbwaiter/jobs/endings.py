"""What the end of a job calls for: errands, as its watch wants them, and a notice on the desktop."""

import time
from collections.abc import Callable, Mapping, Sequence

from dumbwaiter.config import Config
from dumbwaiter.jobs.notices import Notices
from dumbwaiter.journal import Journal
from dumbwaiter.model import Job, Receipt
from dumbwaiter.store.errands import AFTER, FOLLOW_UP, Order
from dumbwaiter.watch.settle import CALM

DONE, FAILED, ATTENTION = "on_done", "on_failed", "on_attention"
UNPROVEN = "kept: nothing shows that the provider has these very bytes"
LACKING = "kept: not all is done at the provider"


class Endings:
    """The errands to order with the end of each job. All of it runs on the loop."""

    def __init__(self, config: Config, journal: Journal, *, ordered: Callable[[], None]) -> None:
        """`ordered` is told when errands are in the journal."""
        self._config = config
        self._journal = journal
        self._ordered = ordered
        self._notices = Notices() if config.notify.desktop else None

    def of_done(self, job: Job, receipt: Receipt) -> list[Order]:
        """Returns what is to be done about a file that is at its provider."""
        orders = self._hook(DONE, job.watch, self._facts(job, receipt, None))
        watch = self._config.watch.get(job.watch)
        if receipt.lacks:
            orders.append(Order(FOLLOW_UP, {}, receipt.lacks))
        elif watch is not None and watch.after != "keep" and receipt.verified:
            # Who closed it may go on with it: a download that broke off, a program that adds line by line.
            calm_at = 0.0 if job.by_hand else job.created_at + CALM * watch.settle
            orders.append(Order(AFTER, {"action": watch.after}, waits=max(0.0, calm_at - time.time())))
        return orders

    def told(self, job: Job, receipt: Receipt) -> Receipt:
        """Returns the receipt with a remark where its file stays although the watch would have it go."""
        watch = self._config.watch.get(job.watch)
        why = "" if receipt.verified else UNPROVEN
        why = LACKING if receipt.lacks else why
        if watch is None or watch.after == "keep" or not why:
            return receipt
        return receipt.with_facts(after=why)

    def of_failed(self, job: Job, error: str) -> list[Order]:
        """Returns what is to be done about a file that the provider refuses."""
        return self._hook(FAILED, job.watch, self._facts(job, None, error))

    async def attention(self, provider: str, error: str) -> None:
        """A person is needed before any file of this provider can go on."""
        ordered: list[Order] = []
        for name, watch in self._config.watch.items():
            if watch.provider == provider:
                facts = {"provider": provider, "watch": name, "error": error}
                if orders := self._hook(ATTENTION, name, facts):
                    await self._journal.errands.order(name, orders, time.time())
                    ordered += orders
        self.ended(ATTENTION, f"{provider}: {error}", ordered)

    def ended(self, event: str, text: str, orders: Sequence[Order]) -> None:
        """A job has ended, and what was ordered with it is in the journal."""
        if self._notices is not None:
            self._notices.add(event, text)
        if orders:
            self._ordered()

    async def close(self) -> None:
        """Shows the notices that were collected."""
        if self._notices is not None:
            await self._notices.close()

    def _hook(self, event: str, watch: str, facts: Mapping[str, str]) -> list[Order]:
        known = self._config.watch.get(watch)
        return [Order(event, facts)] if known is not None and known.hook(event) is not None else []

    @staticmethod
    def _facts(job: Job, receipt: Receipt | None, error: str | None) -> dict[str, str]:
        return {
            "provider": job.provider,
            "watch": job.watch,
            "size": str(job.size),
            "key": (receipt.key if receipt else job.key) or "",
            "url": (receipt.url if receipt else None) or "",
            "etag": receipt.etag if receipt else "",
            "error": error or "",
        }
