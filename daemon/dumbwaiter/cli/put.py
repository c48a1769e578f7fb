"""put: uploads named files now, through the daemon or in its place."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import click

from dumbwaiter.cli.answers import in_use
from dumbwaiter.cli.completion import Named, providers_offered, watches_offered
from dumbwaiter.cli.paths import placed
from dumbwaiter.cli.progress import bars
from dumbwaiter.cli.session import Session, json_option, not_empty
from dumbwaiter.cli.words import place, rests
from dumbwaiter.errors import Exit, Failure, NoDaemon
from dumbwaiter.loop import run_loop
from dumbwaiter.naming import shown

LEFT = {  # of what a daemon that stops has not done
    "pending": "it is in the queue, and sent when the daemon runs again",
    "stored": "the provider has it; the rest is done when the daemon runs again",
}
STOPPING = 10.0  # seconds in which a daemon that is not heard any more may be gone
TRIES = 3  # failures of a job in a row after which it is not waited for
SOON = 60.0  # seconds; a job whose next try is further away is not waited for


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
    from dumbwaiter.control.following import follow_jobs
    from dumbwaiter.control.orders import Orders
    from dumbwaiter.installation import LOOK, open_lock

    final: dict[str, Any] = {}
    lock = open_lock(session.places)
    try:
        if not await lock.acquire(STOPPING if lock.held_by_daemon else LOOK):
            if lock.held_by_daemon:
                raise Failure(in_use(session.places, by_daemon=True), Exit.TEMPORARY)
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
                await app.errands.drain()
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
        or str(job["id"]) in answer["unnoted"]
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
        reason = (
            final["unnoted"].get(str(job["id"]))
            or refused
            or job["error"]
            or final["lost"].get(job["provider"])
            or LEFT.get(job["state"], job["state"])
        )
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
