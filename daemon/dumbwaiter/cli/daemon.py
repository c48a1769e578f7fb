"""Commands that make the work go on: run, put, wait, retry, forget, rescan."""

import asyncio
import contextlib
import gc
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from dumbwaiter.cli.completion import Named, providers_offered, watches_offered
from dumbwaiter.cli.paths import placed
from dumbwaiter.cli.progress import bars
from dumbwaiter.cli.session import Session, json_option, not_empty
from dumbwaiter.cli.words import place, rests, span, unusable
from dumbwaiter.errors import Exit, Failure, NoDaemon
from dumbwaiter.naming import counted, shown
from dumbwaiter.threads import ASIDE, run_loop

if TYPE_CHECKING:
    from dumbwaiter.journal import Journal

ANSWER = 2.0  # seconds that the start waits for folders
ENDED = 9.0  # seconds from the wish to end, whatever is waited for
HUNG = 8  # threads more, for each watched folder: a dead one may keep so many
LEFT = {  # of what a daemon that stops has not done
    "pending": "it is in the queue, and sent when the daemon runs again",
    "stored": "the provider has it; the rest is done when the daemon runs again",
}
STOPPING = 10.0  # seconds in which a daemon that is not heard any more may be gone
TRIES = 3  # failures in a row after which `put` no longer waits
NUMBER = click.IntRange(1, (1 << 63) - 1)  # of a job
NUMBER.name = "number"  # what click says that a word is none of
MORE = 90.0  # seconds for a start, as systemd gives it, from each time on that it is asked
SOON = 60.0  # seconds; nor does it for a try that is further away


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

    from dumbwaiter import control_socket, log, status_line, web
    from dumbwaiter.app import open_app
    from dumbwaiter.events import Feed
    from dumbwaiter.installation import open_lock
    from dumbwaiter.kernel import raise_files
    from dumbwaiter.signals import wait_for_stop

    config, places = session.config, session.places
    if not config.watch:
        raise Failure(f"{places.config} watches no folder: add a [watch.NAME] table", Exit.USAGE)
    lock = open_lock(places)
    if not await lock.acquire(runtime=places.runtime):
        lock.close()
        raise Failure(f"a daemon is already running on {places.state}: `dumbwaiter status` asks it")
    notifier = sdnotify.SystemdNotifier()
    if notifier.socket is not None:
        notifier.socket.setblocking(False)  # a manager that does not read must not stop the work
    logger = log.get("daemon")
    end = asyncio.create_task(wait_for_stop())
    last = threading.Timer(ENDED, _end_anyway, (logger,))
    last.daemon = True
    end.add_done_callback(lambda wish: None if wish.cancelled() else last.start())
    raise_files()
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
        async with control_socket.serve(app, feed, places), web.serve(app, feed), contextlib.aclosing(feed):
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
    lock.close()
    last.cancel()
    if app.ousted.done():
        raise app.ousted.result()


def _end_anyway(logger: Any) -> None:
    """Ends the program, whatever it waits for: a kill costs no more, and a database may never answer."""
    from dumbwaiter import log

    logger.error("ended before all was noted; the next start goes on from what the journal has")
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


@click.command()
@click.argument("files", nargs=-1, required=True, callback=not_empty, type=Named())
@click.option(
    "--provider",
    metavar="NAME",
    callback=not_empty,
    shell_complete=providers_offered,
    help="Which provider, if there are several.",
)
@click.option(
    "--watch",
    metavar="NAME",
    callback=not_empty,
    shell_complete=watches_offered,
    help="Upload to this watch's provider; its rules hold for files in its folder.",
)
@click.option("--again", is_flag=True, help="Send also what was sent before, as it is.")
@json_option
@click.pass_obj
def put(session: Session, files: Sequence[str], provider: str | None, watch: str | None, *, again: bool) -> None:
    """Uploads FILES now and prints one link a line.

    \b
    dumbwaiter put film.mov
    dumbwaiter put --provider vod *.mov | tee links.txt
    dumbwaiter put --again film.mov    the provider lost it, or did not do all that was wanted

    Files inside a watched folder go where that watch sends them. The upload goes through the daemon when one runs;
    without one it is done here, and what cannot be finished stays in the journal. Exit codes: 0 when all are there, 5 when
    some go on later, 20 when one needs a person, 21 when the provider refuses the account.
    """
    if provider is not None and watch is not None:
        raise Failure("say --provider or --watch, not both: a watch has its provider", Exit.USAGE)
    paths = [placed(session.config, name) for name in files]
    session.mute_log()
    final: dict[str, Any] = {}
    try:
        wish = {
            "paths": [quote(os.fsencode(path)) for path in paths],
            "provider": provider,
            "watch": watch,
            "again": again,
        }
        with contextlib.closing(session.follow("POST", "/put", wish)) as answers, bars(session) as show:
            for final in answers:
                show(final["jobs"])
                if _hopeless(final):
                    break
    except KeyboardInterrupt:
        raise Failure("not waited for: the daemon goes on with it, `dumbwaiter status` shows how far it is") from None
    except NoDaemon:
        final = run_loop(_put_alone(session, paths, provider, watch, again=again))
    _report(session, final)


async def _put_alone(
    session: Session, paths: Sequence[str], provider: str | None, watch: str | None, *, again: bool
) -> dict[str, Any]:
    """Uploads without a daemon: takes its place for as long as it takes. Returns how the jobs ended."""
    from dumbwaiter.app import open_app
    from dumbwaiter.following import follow_jobs
    from dumbwaiter.installation import LOOK, open_lock
    from dumbwaiter.orders import Orders

    final: dict[str, Any] = {}
    lock = open_lock(session.places)
    try:
        if not await lock.acquire(STOPPING if lock.held_by_daemon else LOOK):
            if lock.held_by_daemon:
                raise Failure(session.in_use(by_daemon=True), Exit.TEMPORARY)
            session.say(f"waiting for another `dumbwaiter put` on {session.places.state}")
            await asyncio.to_thread(lock.wait)
        async with open_app(session.config, session.places) as app:
            ids = await Orders(app).put(paths, provider, watch, again=again, alone=True)
            try:
                await app.start()
                with bars(session) as show:
                    async for final in follow_jobs(app, ids):
                        show(final["jobs"])
                        if _hopeless(final):
                            break
                await app.duties.drain()
            except asyncio.CancelledError:  # by Ctrl-C
                raise Failure(
                    "stopped: what was left is in the journal, and the next `dumbwaiter run`, or `put` of the same file, "
                    "goes on with it"
                ) from None
            return final
    finally:
        lock.close()


def _hopeless(answer: dict[str, Any]) -> bool:
    """True when nothing more can be expected soon of the jobs that are left."""
    left = [job for job in answer["jobs"] if job["state"] in {"pending", "stored"}]
    soon = time.time() + SOON
    return bool(left) and all(
        job["provider"] in answer["blocked"]
        or (job["provider"] in {*answer["resting"], *answer["lost"]} and not job["active"])
        or (job["error"] and (job["attempts"] >= TRIES or job["due_at"] > soon) and not job["active"])
        for job in left
    )


def _report(session: Session, final: dict[str, Any]) -> None:
    from dumbwaiter.config import RESERVED

    code = Exit.DONE
    for job in final["jobs"]:
        where = f"/{job['path']}" if job["watch"] == RESERVED else place(job)
        if job["state"] == "done":
            if not session.json:
                print(job["url"] or shown(f"{job['provider']}/{job['key']}"))
            if lacks := job.get("lacks"):  # a daemon that was not restarted since an upgrade does not tell
                print(f"dumbwaiter: {where}: {lacks}; `dumbwaiter failed` says what helps", file=sys.stderr)
                code = max(code, Exit.ATTENTION)
            continue
        refused = final["blocked"].get(job["provider"])
        reason = refused or job["error"] or final["lost"].get(job["provider"]) or LEFT.get(job["state"], job["state"])
        if not refused and job["provider"] in final["resting"] and job["state"] == "pending":
            reason = f"{rests(job['provider'], final['resting'][job['provider']])}; it is sent then"
        print(f"dumbwaiter: {where}: {reason}", file=sys.stderr)
        if refused:
            code = Exit.ACCOUNT
        elif job["state"] == "rejected":
            code = max(code, Exit.ATTENTION)
        elif job["state"] == "superseded":
            code = max(code, Exit.FAILED)
        else:
            code = max(code, Exit.TEMPORARY)
    if session.json:
        session.facts(final["jobs"])
    raise click.exceptions.Exit(code)


@click.command()
@click.option(
    "--timeout", metavar="TIME", callback=not_empty, help='Give up after this, like "10m"; a number alone is seconds.'
)
@click.option("--inhibit", is_flag=True, help="Keep the machine from sleeping and shutting down meanwhile.")
@json_option
@click.pass_obj
def wait(session: Session, timeout: str | None, *, inhibit: bool) -> None:
    """Returns when everything seen so far is done: 0, or 20 when a file could not be uploaded and needs a person.

    \b
    dumbwaiter wait --inhibit && systemctl poweroff
    dumbwaiter wait --timeout 10m      exit code 5 when that was too short
    """
    end = time.monotonic() + span(timeout) if timeout else None
    with _inhibited(session) if inhibit else contextlib.nullcontext():
        _wait(session, end)


@contextlib.contextmanager
def _inhibited(session: Session) -> Iterator[None]:
    """Holds sleep and shutdown off; where there is no logind, says so and goes on."""
    from dumbwaiter.cli.inhibit import NoLogind, held

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held("files are being uploaded"))
        except NoLogind as reason:
            session.say(f"sleep and shutdown are not held off: {reason}")
        yield


def _wait(session: Session, end: float | None) -> None:
    totals: dict[str, int] = {}
    with contextlib.closing(_states(session, end)) as states:
        for state in states:
            totals = state["totals"]
            left = totals["pending"] + totals["stored"] + state["settling"]
            if not left and not state["trouble"]:
                if session.json:
                    session.facts(totals)
                if count := totals["in_need"]:
                    told = f"{counted(count, 'file needs', 'files need')} a person: dumbwaiter failed"
                    if totals["rejected"]:
                        raise Failure(told, Exit.ATTENTION)
                    session.say(f"all is at the providers; {told}")
                return
            stuck = [one for one in state["providers"] if one["state"] == "blocked" and one["pending"]]
            if left and stuck and not state["settling"] and sum(one["pending"] for one in stuck) == left:
                if session.json:
                    session.facts(totals)
                raise Failure(f"provider {stuck[0]['name']}: {stuck[0]['error']}", Exit.ACCOUNT)
    if session.json:
        session.facts(totals)
    raise Failure("not everything is done yet", Exit.TEMPORARY)


def _states(session: Session, end: float | None) -> Generator[dict[str, Any], None, None]:
    """Yields the daemon's states until `end`."""
    with contextlib.closing(session.follow("GET", "/status?jobs=0&follow=1&scan=1", end=end)) as states:
        for state in states:
            yield state
            if end is not None and time.monotonic() > end:
                return


@click.command()
@click.argument("ids", nargs=-1, type=NUMBER)
@click.option("--all", "everything", is_flag=True, help="All of them.")
@json_option
@click.pass_obj
def retry(session: Session, ids: Sequence[int], *, everything: bool) -> None:
    """Tries jobs again that needed a person, or that wait for their next try.

    \b
    dumbwaiter retry 12 13             by the numbers that `failed` and `status` show
    dumbwaiter retry --all
    """
    if bool(ids) == everything:
        raise Failure("say which: dumbwaiter retry ID…, or --all", Exit.USAGE)
    chosen = None if everything else ids
    count = _change(session, "/retry", chosen, lambda journal, now: journal.queue.retry(chosen, now))
    if count == 0 and not everything:
        raise Failure(f"no such job is waiting or rejected: {', '.join(map(str, ids))}")
    _tell(session, count, ids, "due again")


@click.command()
@click.argument("ids", nargs=-1, type=NUMBER, required=True)
@json_option
@click.pass_obj
def forget(session: Session, ids: Sequence[int]) -> None:
    """Drops jobs for good; the files stay where they are.

    \b
    dumbwaiter forget 12               that version of the file is not taken again, a newer one is
    """
    count = _change(session, "/forget", ids, lambda journal, now: journal.queue.forget(ids, now))
    if count == 0:
        raise Failure(f"no such job is waiting or rejected: {', '.join(map(str, ids))}")
    _tell(session, count, ids, "forgotten")


def _tell(session: Session, count: int, ids: Sequence[int], what: str) -> None:
    others = len(set(ids)) - count
    if session.json:
        session.facts({"count": count})
    else:
        session.say(f"{counted(count, 'job')} {what}")
    if others > 0:
        session.say(f"{counted(others, 'number is', 'numbers are')} of no job that waits or was rejected")


def _change(
    session: Session, path: str, ids: Sequence[int] | None, change: "Callable[[Journal, float], Awaitable[int]]"
) -> int:
    """Changes jobs through the daemon, or by `change` in the journal when none runs; returns how many."""
    try:
        return int(session.ask("POST", path, {"ids": ids})["count"])
    except NoDaemon:
        return asyncio.run(_change_journal(session, change))


async def _change_journal(session: Session, change: "Callable[[Journal, float], Awaitable[int]]") -> int:
    from dumbwaiter.installation import open_journal

    async with session.locked():
        if not session.has_journal:
            return 0
        async with open_journal(session.config, session.places) as journal:
            return await change(journal, time.time())


@click.command()
@click.argument("watch", required=False, callback=not_empty, shell_complete=watches_offered)
@json_option
@click.pass_obj
def rescan(session: Session, watch: str | None) -> None:
    """Makes the daemon look through watched folders now.

    \b
    dumbwaiter rescan masters && dumbwaiter wait
    """
    facts = session.ask("POST", "/rescan", {"watch": watch})
    if session.json:
        session.facts(facts)
    else:
        session.say(f"scanning {', '.join(facts['watches'])}")
