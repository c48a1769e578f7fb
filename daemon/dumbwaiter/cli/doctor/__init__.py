"""doctor: looks at all that uploading rests on; each line says ok, warn or fail, and the remedy.

A warning lets files through and a failure does not, now or soon. No provider is signed in to, and nothing is changed.
"""

import asyncio

import click

from dumbwaiter import log
from dumbwaiter.cli.doctor.configured import own_folders, secrets, watched_folders
from dumbwaiter.cli.doctor.finding import Finding, Findings, failing
from dumbwaiter.cli.doctor.machine import fuse, inotify, space
from dumbwaiter.cli.doctor.providers import providers
from dumbwaiter.cli.doctor.running import daemon, journal, services
from dumbwaiter.cli.session import Session, json_option, not_empty
from dumbwaiter.config import Config
from dumbwaiter.config.file import exposed
from dumbwaiter.errors import Exit, Failure
from dumbwaiter.naming import counted, legible, shown


@click.command()
@click.option(
    "--bundle",
    metavar="FILE",
    callback=not_empty,
    help="Write a zip for support: findings, settings, log; without secrets.",
)
@json_option
@click.pass_obj
def doctor(session: Session, bundle: str | None) -> None:
    """Looks at everything that uploading needs, and says what to do where something is missing.

    \b
    dumbwaiter doctor
    dumbwaiter doctor --bundle support.zip

    Exit code 1 when something fails, 2 when it is the configuration; warnings are none.
    """
    log.configure("debug" if session.verbose else "critical", "auto")
    findings = list(examine(session))
    failed = [one for one in findings if one.level == "fail"]
    if session.json:
        session.facts({"usable": not failed, "checks": [one._asdict() for one in findings]})
    else:
        for one in findings:
            print(f"{one.level:<4}  {one.check}: {legible(one.says)}")
            if one.remedy:
                print(f"      → {legible(one.remedy)}")
    if bundle:
        from dumbwaiter.cli.bundle import write

        write(session, findings, bundle)
        session.say(f"wrote {shown(bundle)}: have a look into it before you give it away")
    if failed:
        raise click.exceptions.Exit(Exit.USAGE if failed[0].check == "configuration" else Exit.FAILED)


def examine(session: Session) -> Findings:
    """Yields every finding; without a usable configuration, what can be said without it."""
    usable = True
    try:
        config = session.config
    except Failure as failure:
        usable = False
        yield Finding("configuration", "fail", str(failure), "dumbwaiter check says it again once it is mended")
        config = Config()
    else:
        yield Finding(
            "configuration", "ok",
            f"{session.places.config}: {counted(len(config.provider), 'provider')}, {counted(len(config.watch), 'watch', 'watches')}",
        )  # fmt: skip
        for sentence in exposed(session.places.config):
            says, _, remedy = sentence.rpartition(": ")
            yield Finding("configuration", "warn", says, remedy)
    yield from secrets(config)
    yield from watched_folders(config)
    yield from own_folders(session)
    yield from inotify(config)
    yield from fuse(session, config)
    yield from space(session)
    if usable:
        yield from journal(session)
    try:
        yield from daemon(session, config)
    except Failure as failure:
        yield failing("daemon", failure)
    yield from services(session)
    yield from asyncio.run(providers(config))
