"""What runs: the journal's work, the daemon and its page, the services."""

import os
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from typing import Literal

from dumbwaiter.cli.doctor.finding import Finding, Findings, failing
from dumbwaiter.cli.session import Session
from dumbwaiter.config import Config
from dumbwaiter.config.values import Listen
from dumbwaiter.errors import Exit, Failure, JournalTrouble
from dumbwaiter.naming import unshown

HERE = 5.0  # seconds for the page, which is on this machine
PAGE = b"<title>dumbwaiter</title>"


def journal(session: Session) -> Findings:
    """What the journal says of the work, or why it cannot be read."""
    from dumbwaiter import report

    try:
        if not session.has_journal:
            yield Finding("journal", "ok", f"none yet in {session.places.state}")
            return
        totals = report.totals(session.reader)
    except (JournalTrouble, Failure) as trouble:
        yield _journal_trouble(str(trouble), on_server=bool(session.config.journal))
        return
    left = totals["pending"] + totals["stored"]
    says = f"{totals['done']} done, {left} to go, {totals['in_need']} need a person"
    if totals["in_need"]:
        yield Finding("journal", "warn", says, "dumbwaiter failed says which, and why")
    else:
        yield Finding("journal", "ok", says)


def _journal_trouble(sentence: str, *, on_server: bool) -> Finding:
    """What a sentence about the journal says, and its remedy: where it ends with what the system said, one of ours."""
    says, _, remedy = sentence.rpartition(": ")
    unread = sentence.startswith("the journal cannot be read: ")
    if unread or " cannot be used: " in sentence:
        says, remedy = sentence, "see to the disk that the state folder is on, or name another folder with --state"
        if unread and on_server:
            remedy = (
                "see that its server runs, lets this user in, and is the one that journal in the configuration names"
            )
    return Finding("journal", "fail", says or sentence, remedy)


def daemon(session: Session, config: Config) -> Findings:
    """What a running daemon says of itself, and whether its page is there. Raises `Failure`."""
    from dumbwaiter.files.ignore import IGNORE_FILE

    try:
        facts = session.ask("GET", "/status?jobs=0")
    except Failure as failure:
        found, start = failing("daemon", failure), "dumbwaiter run, or dumbwaiter service install"
        absent = failure.code is Exit.NO_DAEMON
        yield found._replace(level="warn", remedy=start) if absent else found._replace(remedy=found.remedy or start)
        return
    yield Finding("daemon", "ok", f"running as process {facts['pid']}")
    if facts["trouble"]:
        yield Finding("daemon", "fail", facts["trouble"], "the remedy stands in that sentence; it goes on by itself")
    for watch in facts["watches"]:
        said = watch["message"].startswith(IGNORE_FILE) or not os.path.isdir(unshown(watch["path"]))
        if watch["message"] and not said:
            level: Literal["warn", "fail"] = "fail" if watch["state"] == "away" else "warn"
            yield Finding(f"watch {watch['name']}", level, watch["message"], f"dumbwaiter rescan {watch['name']}")
    for provider in facts["providers"]:
        if provider["state"] == "blocked":
            remedy = "put the account in order, then dumbwaiter retry --all"
            yield Finding(f"provider {provider['name']}", "fail", provider["error"] or "blocked", remedy)
    if config.web.listen is not None:
        yield _page(config.web.listen)


def _page(listen: Listen) -> Finding:
    address = f"http://{listen}/"
    try:
        with closing(HTTPConnection(str(listen.host), listen.port, timeout=HERE)) as connection:
            connection.request("GET", "/")
            served = PAGE in connection.getresponse().read()
    except (OSError, HTTPException):
        served = False
    if served:
        return Finding("page", "ok", f"served at {address}")
    remedy = "if another program has that port, name another one in [web] listen; then start the daemon again"
    return Finding("page", "warn", f"not served at {address}", remedy)


def services(session: Session) -> Findings:
    """How the installed units are."""
    from dumbwaiter.cli.service import states
    from dumbwaiter.cli.systemd import booted, own_target

    if not booted():
        yield Finding(
            "service", "ok", "systemd does not run this machine; dumbwaiter run has to be started by other means"
        )
        return
    found = [one for system in (False, True) for one in states(own_target()._replace(system=system), session)]
    if not found:
        yield Finding(
            "service", "warn", "none is installed: nothing uploads after a restart", "dumbwaiter service install"
        )
    for one in found:
        remedy = "; ".join(one["remedies"])
        level: Literal["ok", "warn", "fail"] = "fail" if one["state"] != "active" else "warn" if remedy else "ok"
        yield Finding("service", level, f"{one['unit']} is {one['state']}", remedy)
