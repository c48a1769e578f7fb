"""Commands that steer the running daemon: pause, resume, bandwidth, rescan."""

from typing import Any

import click

from dumbwaiter.cli.completion import names_offered, watches_offered
from dumbwaiter.cli.session import Session, json_option, not_empty
from dumbwaiter.cli.words import size, span, when
from dumbwaiter.errors import Exit, Failure


@click.command()
@click.argument("name", required=False, callback=not_empty, shell_complete=names_offered)
@click.option(
    "--for",
    "time",
    metavar="TIME",
    callback=not_empty,
    help='Go on by itself after this, like "2h"; a number alone is seconds.',
)
@json_option
@click.pass_obj
def pause(session: Session, name: str | None, time: str | None) -> None:
    """Lets a provider or a watch rest, without NAME all of them, until `resume`.

    \b
    dumbwaiter pause --for 2h          for a video call
    dumbwaiter pause masters           one watch, until further notice

    What is being sent stops at its next part and goes on from there later. Files are noticed all the while.
    A restart of the daemon changes nothing.
    """
    seconds = span(time) if time else None
    if seconds == 0:
        raise Failure("a pause lasts longer than no time", Exit.USAGE)
    _show(session, session.ask("POST", "/pause", {"name": name or "", "seconds": seconds}))


@click.command()
@click.argument("name", required=False, callback=not_empty, shell_complete=names_offered)
@json_option
@click.pass_obj
def resume(session: Session, name: str | None) -> None:
    """Ends a pause of a provider or a watch; without NAME every pause.

    \b
    dumbwaiter resume masters
    """
    _show(session, session.ask("POST", "/resume", {"name": name}))


def _show(session: Session, facts: dict[str, Any]) -> None:
    if session.json:
        session.facts(facts)
        return
    for pause in facts["paused"]:
        until = "until you resume it" if pause["until"] is None else f"until {when(pause['until'])}"
        session.say(f"{pause['name'] or 'everything'} rests {until}")
    if not facts["paused"]:
        session.say("nothing rests")


@click.command()
@click.argument("rate", required=False, callback=not_empty)
@json_option
@click.pass_obj
def bandwidth(session: Session, rate: str | None) -> None:
    """Shows the limit of all uploads together, or sets it: RATE is like "2M" or "512k", "off", or "auto".

    \b
    dumbwaiter bandwidth 2M

    It holds at once, also for what is being sent, until the daemon ends; "auto" goes back to the configuration.
    """
    facts = session.ask("POST", "/bandwidth", {"rate": rate})
    if session.json:
        session.facts(facts)
        return
    print("no limit" if facts["bytes_per_second"] is None else f"{size(facts['bytes_per_second'])}/s")


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
