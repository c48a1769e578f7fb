"""The daemon: builds everything once, starts it, and stops it in reverse order.

Two programs run on it: `run`, with folders to watch, and `put` without a daemon, with nothing but the files named.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from math import inf

from dumbwaiter import log, report, schedule
from dumbwaiter.brokers import broker
from dumbwaiter.config import Config
from dumbwaiter.errors import Exit, Failure, JournalTrouble
from dumbwaiter.files.ignore import Rules
from dumbwaiter.installation import MOVED, open_journal
from dumbwaiter.jobs.context import Context
from dumbwaiter.jobs.endings import Endings
from dumbwaiter.jobs.engine import Engine
from dumbwaiter.jobs.errands import ErrandRunner
from dumbwaiter.jobs.steering import Steering
from dumbwaiter.jobs.threads import Threads
from dumbwaiter.journal import Journal
from dumbwaiter.model import Job, Sighting
from dumbwaiter.net.http import Http
from dumbwaiter.net.monitor import CHANGED, NetworkMonitor
from dumbwaiter.net.reach import Reach, hosts
from dumbwaiter.places import Places
from dumbwaiter.policy import AFTER_MAX, PAUSE
from dumbwaiter.providers import listing
from dumbwaiter.providers.addresses import Addresses
from dumbwaiter.providers.list_walks import ListWalks
from dumbwaiter.providers.provider import Provider
from dumbwaiter.pulse import Pulse
from dumbwaiter.schedule import SET, SLEPT, Schedule
from dumbwaiter.status import Status
from dumbwaiter.store.backup import back_up
from dumbwaiter.store.database import journal_url
from dumbwaiter.store.presence import TAKEN
from dumbwaiter.watch.intake import Intake
from dumbwaiter.watch.source import Source
from dumbwaiter.watch.watches import Watches

REFRESH = 30.0  # seconds between looks at what nears its end
TIDY = 60.0
SHARED = "another installation on this journal has one of this name, and their files of one path stand for each other"


class App:
    """A running daemon. `open_app` makes one."""

    def __init__(
        self,
        config: Config,
        places: Places,
        journal: Journal,
        http: Http,
        providers: dict[str, Provider],
    ) -> None:
        self.config = config
        self.places = places
        self.journal = journal
        self.http = http
        self.providers = providers
        self.reader = journal.reader
        self.pulse = Pulse()
        self.schedule = Schedule()
        self.errands = ErrandRunner(
            config,
            journal,
            http,
            wake_at=lambda when: self.schedule.at("errands", when),
            sighted=lambda watch, path: self.intake.sight([Sighting(watch, path)]),
            away=lambda watch: self.watches.away(watch),
            closed=lambda watch, path, stamp: self.intake.heard_closed(watch, path, stamp),
            moved=self.pulse.beat,
        )
        self.endings = Endings(config, journal, ordered=self.errands.kick)
        context = Context(
            journal,
            secrets.token_hex(8),
            providers,
            Threads(config.limits.transfers + max(0, len(providers) - 1), config.limits.parts),  # see Engine._slots_now
            self.endings,
            folder_of=config.folder_of,
            watch_of=config.watch.get,
            resting=lambda now: self.steering.providers(now),
            closed=lambda now: (
                self.steering.watches(now) | config.closed(now) | dict.fromkeys(self.watches.lost(), inf)
            ),
            changed=self._changed,
            moved=self.pulse.beat,
            away=lambda watch: self.watches.away(watch),
        )
        self.engine = Engine(
            context,
            transfers=config.limits.transfers,
            wake_at=lambda when: self.schedule.at("dispatch", when),
        )
        self.steering = Steering(
            journal.pauses, http.bandwidth, config.limits.bandwidth, providers=config.provider, watches=config.watch
        )
        folders = {
            name: Source(one.path, one.provider, Rules(one.include, one.exclude), one.settle, one.after)
            for name, one in config.watch.items()
        }
        self.intake = Intake(folders, journal, queued=self.look_for_work, moved=self.pulse.beat)
        self.watches = Watches(
            config,
            places.runtime,
            journal,
            self.intake,
            self.schedule,
            changed=self.pulse.beat,
            back=self._back,
        )
        # Why nothing here is ours any more.
        self.ousted: asyncio.Future[Failure] = asyncio.get_running_loop().create_future()
        self._network_monitor: NetworkMonitor | None = None
        self._rechecks: set[asyncio.Task[None]] = set()
        self.addresses = Addresses(providers)
        self.walks = ListWalks(journal, providers, lambda name, when: self.schedule.at(f"list {name}", when))
        self.status = Status(
            config,
            journal,
            providers,
            watches=self.watches,
            intake=self.intake,
            steering=self.steering,
            walks=self.walks,
            trouble=lambda: self.trouble,
        )
        self._uncopied = ""  # why there is no copy of the journal
        self._log = log.get("app")

    async def keep_to_config(self) -> None:
        """Ends what is not asked for any more. Only before the start, and for one who watches."""
        asked = {name: watch.provider for name, watch in self.config.watch.items()}
        if ended := await self.journal.queue.end_unwanted(asked, self.providers.keys(), time.time()):
            self._log.info("not asked for any more", jobs=ended)

    async def start(self) -> None:
        """Starts the clock and the attempts; jobs left by an earlier run go on."""
        for name, provider in self.providers.items():
            for sentence in provider.broker.warnings:
                self._log.warning("provider needs care", provider=name, reason=sentence)
        for name in await asyncio.to_thread(report.shared_watches, self.reader, self.config.watch):
            self._log.warning("watch needs another name", watch=name, reason=SHARED)
        for name, sentence in self.config.last_copies():
            self._log.warning("watch needs care", watch=name, reason=sentence)
        await self.steering.load()
        await self.journal.queue.bring_forward(time.time(), time.time() + AFTER_MAX + PAUSE)
        self.schedule.every("dispatch", 60.0, self.engine.wake)
        self.schedule.every("errands", 60.0, self.errands.wake)
        self.schedule.every("bandwidth", 3600.0, self._keep_time)
        self.schedule.every("refresh", REFRESH, self._refresh)
        self.schedule.every("tidy", TIDY, self._tidy)
        self.schedule.start(self.recheck)
        try:
            self._network_monitor = NetworkMonitor(lambda: self.recheck(CHANGED))
        except OSError as error:  # a container may have none
            self._log.warning("changes of the network are not heard", error=error.strerror)
        self.intake.start()
        self.schedule.now("dispatch")
        self.errands.kick()
        self.schedule.now("bandwidth")

    def expect(self) -> None:
        """Notes that all watched folders are to be looked through: who asks from now on is told so."""
        for name in self.config.watch:
            self.intake.expect(name)

    async def watch(self) -> None:
        """Starts watching, and reading the providers' lists where that is configured."""
        await self.watches.start()
        for name, options in self.config.provider.items():
            if (period := getattr(options, "refresh", None)) is not None:
                begun = await listing.begun_at(self.journal, name)
                self.schedule.every(f"list {name}", period, self.walks.due, name)
                self.schedule.at(f"list {name}", time.time() if begun is None else begun + period)

    async def stuck(self, patience: float) -> str:
        """Returns which part of the daemon keeps it from moving within so many seconds, empty if it moves."""
        until = asyncio.get_running_loop().time() + patience
        for name, turn in (("journal", self._ask_journal), ("engine", self.engine.turn), ("intake", self.intake.turn)):
            try:
                async with asyncio.timeout_at(until):
                    await turn()
            except TimeoutError:
                return name
        return "watcher" if self.watches.deaf else ""

    async def _ask_journal(self) -> None:
        with contextlib.suppress(JournalTrouble):  # an answer too: a full disk is waited out, not restarted
            await self.journal.next_due()

    async def stop(self) -> None:
        if self._network_monitor is not None:
            self._network_monitor.close()
        await asyncio.gather(*self._rechecks, return_exceptions=True)
        await self.watches.close()
        await self.intake.close()
        await self.schedule.close()
        await self.walks.close()
        await self.engine.close()
        await self.errands.close()
        await self.endings.close()

    async def _keep_time(self) -> None:
        change = self.steering.keep_time()
        if change is not None:
            self.schedule.at("bandwidth", change)

    @property
    def trouble(self) -> str | None:
        """What keeps the journal from working."""
        return self.engine.trouble or self.intake.trouble

    def look_for_work(self) -> None:
        """Has the engine look for due jobs at once."""
        self.pulse.beat()
        self.engine.kick()

    def _back(self) -> None:
        self.engine.kick()
        self.errands.kick()

    def _changed(self, job: Job, seconds: float) -> None:
        """The file of a job is another version now: that one is wanted, and not as soon where it outran an upload."""
        self.intake.outrun(job.watch, job.path, seconds)
        self.intake.sight([Sighting(job.watch, job.path)])

    def recheck(self, reason: str) -> None:
        """Takes nothing for granted any more that a sleep, another clock or another network may have ended."""
        self._log.info("beginning anew", reason=reason)
        if reason == schedule.ZONE_SET:  # only windows and timetables go by it
            self.schedule.now("bandwidth")
            self.look_for_work()
            return
        self.http.renew()
        task = asyncio.create_task(self._wait_no_longer(reason), name="recheck")
        self._rechecks.add(task)
        task.add_done_callback(self._rechecks.discard)
        self.watches.recheck(reason)
        self.schedule.now("refresh")

    async def _wait_no_longer(self, reason: str) -> None:
        dated = reason in {SLEPT, SET}  # whatever waits does so until a time by a clock that may have been another
        offline = [name for name, one in self.providers.items() if one.health.offline]
        for name in self.providers if dated else offline:
            self.providers[name].health.again()
        with contextlib.suppress(JournalTrouble):  # they are due some minutes later
            await self.journal.queue.make_failed_due(offline, time.time())
            if dated:
                await self.journal.queue.make_due(None, time.time())
        self.look_for_work()
        self.errands.kick()

    async def _refresh(self) -> None:
        with contextlib.suppress(JournalTrouble):
            await self._look_whether_ours()
        for provider in self.providers.values():
            with contextlib.suppress(JournalTrouble):  # whoever meets it next tells
                await provider.refresh(self.endings.attention)

    async def _look_whether_ours(self) -> None:
        if self.ousted.done():
            return
        if sentence := await asyncio.to_thread(self.journal.out_of_place):
            self.ousted.set_result(Failure(sentence, Exit.USAGE if sentence == MOVED else Exit.TEMPORARY))
        elif not await self.journal.presence.goes_on():
            self.ousted.set_result(Failure(TAKEN, Exit.TEMPORARY))

    async def _tidy(self) -> None:
        self.http.tidy()
        with contextlib.suppress(JournalTrouble):
            await self.journal.tidy(time.time())
        try:
            await asyncio.to_thread(back_up, journal_url(self.places.state, self.config.journal), time.time())
            self._uncopied = ""
        except JournalTrouble as trouble:
            if str(trouble) != self._uncopied:  # else it has been said
                self._log.warning("no copy of the journal", error=str(trouble))
            self._uncopied = str(trouble)


@asynccontextmanager
async def open_app(config: Config, places: Places) -> AsyncIterator[App]:
    """Makes an app whose parts are ready and not started. The caller holds the lock of the state folder."""
    async with AsyncExitStack() as stack:
        brokers = {name: broker(options) for name, options in config.provider.items()}
        journal = await stack.enter_async_context(open_journal(config, places))
        await journal.release_all()
        for name, one in brokers.items():
            one.own = f"{journal.host}/{name}"
        http = Http(reach=Reach([*hosts(config), *config.network.inside]))
        stack.push_async_callback(http.close)

        async def requested(count: int) -> None:
            await journal.counters.count(grants_requested=count)

        providers = {
            name: Provider(
                name,
                one,
                http,
                requested=requested,
                siblings=journal.entries.siblings,
                of_size=journal.entries.of_size,
                requests=config.limits.requests.get(name),
                bandwidth=http.bandwidth,
            )
            for name, one in brokers.items()
        }
        app = App(config, places, journal, http, providers)
        stack.push_async_callback(app.stop)
        yield app
