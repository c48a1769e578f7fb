"""The walks through providers' own lists that are under way: at a person's word, or because it is time."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping

import msgspec

from dumbwaiter import log
from dumbwaiter.errors import Exit, Failure, JournalTrouble, Verdict
from dumbwaiter.journal import Journal
from dumbwaiter.policy import Delay, Pause, decide
from dumbwaiter.providers import listing
from dumbwaiter.providers.listing import Outcome
from dumbwaiter.providers.provider import Provider


class ListWalks:
    """One walk a provider at a time. `later` hears when the walk of a provider is to be tried again."""

    def __init__(
        self, journal: Journal, providers: Mapping[str, Provider], later: Callable[[str, float], None]
    ) -> None:
        self._journal = journal
        self._providers = providers
        self._later = later
        self._under_way: dict[str, tuple[Outcome, asyncio.Task[None]]] = {}
        self._missed: dict[str, tuple[int, str]] = {}  # by provider: walks that failed in a row, and why the latest did
        self._log = log.get("walks")

    def of(self, provider: str | None) -> list[str]:
        """Returns the providers whose own list can be read: the one named, or all. Raises `Failure`."""
        if provider is not None and provider not in self._providers:
            raise Failure(f'there is no provider "{provider}"', Exit.USAGE)
        names = [name for name, one in self._providers.items() if one.broker.lists and provider in {None, name}]
        if not names:
            which = f"{provider} gives" if provider else "the configured providers give"
            raise Failure(f"{which} no list of what is there: only CareyShop does", Exit.USAGE)
        return names

    def begin(self, provider: str) -> tuple[Outcome, asyncio.Task[None]]:
        """Starts reading a provider's own list, unless that is under way, and returns its outcome and its task."""
        if provider not in self._under_way:
            outcome = Outcome(provider)
            task = asyncio.create_task(listing.walk(self._journal, self._providers[provider], outcome), name="list")

            def ended(task: asyncio.Task[None]) -> None:
                del self._under_way[provider]
                _ = task.cancelled() or task.exception()  # nobody may be left to be told

            task.add_done_callback(ended)
            self._under_way[provider] = outcome, task
        return self._under_way[provider]

    async def due(self, provider: str) -> None:
        """Reads the list because it is time; what fails goes on later, where it was."""
        outcome, task = self.begin(provider)
        attempts, _ = self._missed.pop(provider, (0, ""))
        try:
            await asyncio.shield(task)
        except JournalTrouble:
            return
        except Verdict as verdict:
            self._log.warning("list not read", provider=provider, reason=str(verdict))
            self._missed[provider] = attempts + 1, str(verdict)
            match decide(verdict, attempts, time.time(), random.random, fresh=True, again=0):
                case Delay(due_at=when) | Pause(until=when):
                    self._later(provider, when)
        else:
            self._log.info("list read", **msgspec.structs.asdict(outcome))

    def missed(self, provider: str) -> str | None:
        """Returns why the latest walk of its own time failed, None when it did not."""
        return self._missed.get(provider, (0, None))[1]

    async def close(self) -> None:
        tasks = [task for _, task in self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
