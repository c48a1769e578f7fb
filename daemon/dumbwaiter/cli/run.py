"""run: the daemon, in the foreground, from start to end, as systemd sees it."""

import asyncio
import contextlib
import gc
import os
import threading
from typing import Any

import click

from dumbwaiter.cli.session import Session
from dumbwaiter.cli.words import unusable
from dumbwaiter.errors import Exit, Failure
from dumbwaiter.loop import ASIDE, run_loop

ANSWER = 2.0  # seconds that the start waits for folders
ENDED = 9.0  # seconds from the wish to end, whatever is waited for
HUNG = 8  # threads more, for each watched folder: a dead one may keep so many
MORE = 90.0  # seconds for a start, as systemd gives it, from each time on that it is asked


@click.command()
@click.pass_obj
def run(session: Session) -> None:
    """Watches and uploads, in the foreground, until SIGTERM or Ctrl-C; every checkpoint is kept.

    \b
    dumbwaiter run                     the same for good: dumbwaiter service install
    """
    config = session.config
    from dumbwaiter import log

    log.configure(session.level, config.log.format, patient=False)
    run_loop(_run(session), ASIDE + HUNG * len(config.watch))


async def _run(session: Session) -> None:
    import sdnotify

    from dumbwaiter.cli.signals import wait_for_stop
    from dumbwaiter.installation import open_lock
    from dumbwaiter.kernel_limits import raise_files

    places = session.places
    if not session.config.watch:
        raise Failure(f"{places.config} watches no folder: add a [watch.NAME] table", Exit.USAGE)
    lock = open_lock(places)
    if not await lock.acquire(runtime=places.runtime):
        lock.close()
        raise Failure(f"a daemon is already running on {places.state}: `dumbwaiter status` asks it")
    notifier = sdnotify.SystemdNotifier()
    if notifier.socket is not None:
        notifier.socket.setblocking(False)  # a manager that does not read must not stop the work
    end = asyncio.create_task(wait_for_stop())
    last = threading.Timer(ENDED, _end_anyway)
    last.daemon = True
    end.add_done_callback(lambda wish: None if wish.cancelled() else last.start())
    raise_files()
    failure = await _serve(session, notifier, end)
    lock.close()
    last.cancel()
    if failure is not None:
        raise failure


async def _serve(session: Session, notifier: Any, end: "asyncio.Task[None]") -> Failure | None:
    """Uploads, watches and answers until the wish to `end`; returns why, where nothing here is the daemon's any more."""
    from dumbwaiter import log, web
    from dumbwaiter.app import open_app
    from dumbwaiter.control import status_line, unix_socket
    from dumbwaiter.control.events import Feed

    config, places, logger = session.config, session.places, log.get("daemon")
    opening = asyncio.create_task(_ask_for_time(notifier))
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(opening.cancel)
        app = await stack.enter_async_context(open_app(config, places))
        opening.cancel()
        await _look_at_folders(session, app)
        await app.keep_to_config()
        await app.start()
        app.expect()
        feed = Feed(app)
        async with unix_socket.serve(app, feed, places), web.serve(app, feed), contextlib.aclosing(feed):
            await app.watch()
            notifier.notify("READY=1")
            # What is loaded by now stays: the collector need not look at it again, nor at the rest so often.
            gc.freeze()
            gc.set_threshold(20_000, 20, 50)
            logger.info("running", watches=len(config.watch), state=places.state)
            beats = [
                asyncio.create_task(_keep_alive(app, notifier)),
                asyncio.create_task(status_line.tell(app, notifier.notify)),
            ]
            ends: tuple[asyncio.Future[Any], ...] = (end, app.ousted)
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            notifier.notify("STOPPING=1\nSTATUS=stopping; every checkpoint is kept")
            logger.info("stopping")
            for beat in (*beats, end):
                beat.cancel()
            await asyncio.gather(*beats, return_exceptions=True)
    return app.ousted.result() if app.ousted.done() else None


def _end_anyway() -> None:
    """Ends the program, whatever it waits for: a kill costs no more, and a database may never answer."""
    from dumbwaiter import log

    log.get("daemon").error("ended before all was noted; the next start goes on from what the journal has")
    log.flush()
    os._exit(Exit.DONE)


async def _ask_for_time(notifier: Any) -> None:
    """Has systemd wait on while the journal is opened: a new version copies it first, and a large one takes minutes."""
    while True:
        notifier.notify(f"EXTEND_TIMEOUT_USEC={round(MORE * 1e6)}")
        await asyncio.sleep(MORE / 3)


async def _look_at_folders(session: Session, app: Any) -> None:
    """A folder that is away is waited for, and so is one that does not answer; one that never was there is a mistake."""
    from dumbwaiter import log
    from dumbwaiter.report import seen_watches

    def look(name: str, path: str) -> tuple[str | None, bool]:
        return unusable(session.places.config, name, path), os.path.isdir(path)

    seen = await asyncio.to_thread(seen_watches, app.reader, session.config.watch)
    looks = {
        name: asyncio.create_task(asyncio.to_thread(look, name, watch.path))
        for name, watch in session.config.watch.items()
    }
    await asyncio.wait(looks.values(), timeout=ANSWER)
    for name, found in looks.items():
        problem, there = found.result() if found.done() else ("its folder does not answer", True)
        if problem and name not in seen and found.done():
            raise Failure(problem, Exit.USAGE)
        if problem and there:
            log.get("daemon").warning("watch needs care", watch=name, reason=problem)


async def _keep_alive(app: Any, notifier: Any) -> None:
    """Tells systemd's watchdog that everything moves: journal, engine, intake and watcher."""
    from dumbwaiter import log

    patience = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6
    while patience:
        if stuck := await app.stuck(patience / 2):
            log.get("daemon").error("stuck", part=stuck)
        else:
            notifier.notify("WATCHDOG=1")
        await asyncio.sleep(patience / 4)
