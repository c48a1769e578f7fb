"""Is the configuration usable, and what would become of a file: check."""

import asyncio
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import click

from dumbwaiter.cli.completion import Named
from dumbwaiter.cli.paths import out_of_reach, placed
from dumbwaiter.cli.session import Session, json_option, not_empty
from dumbwaiter.cli.words import no_mount_point, size, unusable, when
from dumbwaiter.config import Config, Watch
from dumbwaiter.config.file import exposed, location
from dumbwaiter.config.options import secrets, why_no_keys
from dumbwaiter.config.values import SecretSource
from dumbwaiter.errors import Exit, Failure, JournalTrouble, Reject, Verdict, exit_of
from dumbwaiter.keys import Subject
from dumbwaiter.model import Stamp, State, stamp_of_regular
from dumbwaiter.naming import counted, legible, propose, shown, split

NO_KEY = "no key is configured"
UNTOLD = "its provider's secret is handed over by systemd only"


@click.command()
@click.argument("files", nargs=-1, callback=not_empty, type=Named())
@click.option("--online", is_flag=True, help="Ask the provider for a grant too, and read its limits.")
@json_option
@click.pass_obj
def check(session: Session, files: Sequence[str], *, online: bool) -> None:
    """Says whether the configuration is usable; with FILES, whether and how each would be taken.

    \b
    dumbwaiter check
    dumbwaiter check ~/Drop/film.mov --online

    Exit code 2 when the configuration is not usable, 1 when one of the files would not be taken; with --online also 5
    when a provider cannot be asked now, 20 when it refuses any file, 21 when it refuses the account.
    """
    try:
        config = session.config
        session.mute_log()
        warnings = list(_looked_at(session, config, online=online))
    except Failure as failure:
        if session.json:
            session.facts({"config": session.places.config, "usable": False, "problem": str(failure), "files": []})
        raise
    fates = [_fate(session, path) for path in files]
    probes = [_probe(name) for name in config.provider] if online and not files else []
    code = asyncio.run(_ask_providers(config, fates or probes, session.places.state)) if online else Exit.DONE
    for warning in warnings:
        session.say(f"dumbwaiter: {warning}")
    if session.json:
        answer = {"config": session.places.config, "usable": True, "warnings": warnings, "files": fates}
        told = [
            {name: one[name] for name in ("provider", "taken", "limits", "reason") if name in one} for one in probes
        ]
        session.facts(answer | ({"providers": told} if told else {}))
    else:
        if not files:
            print(
                f"{shown(session.places.config)} is usable: "
                f"{counted(len(config.provider), 'provider')}, {counted(len(config.watch), 'watch', 'watches')}"
                f"{'' if config.watch else ', so it is for `put` alone'}"
            )
        _print_fates(fates)
        _print_limits(probes)
    for one in probes:
        if not one["taken"]:
            print(f"dumbwaiter: {one['reason']}", file=sys.stderr)
    if code is Exit.DONE and not all(one["taken"] for one in fates):
        code = Exit.FAILED
    raise click.exceptions.Exit(code)


def _print_fates(fates: list[dict[str, Any]]) -> None:
    for one in fates:
        print(f"{one['path']}: {legible(one['reason'])}")
        if one["taken"]:
            name = f"as {shown(one['key'])}" if one["key"] else "and the provider would name it"
            name = {NO_KEY: "under a random name", UNTOLD: "under a name that cannot be told"}.get(one["rule"], name)
            first = "compare its content with what was uploaded, and if that differs " if one.get("compared") else ""
            print(f"  watch {one['watch']} would {first}upload it {name}: {one['rule']}")
        for name in ("watch", "provider", "key", "size", "state"):
            if one.get(name) is not None:
                print(f"  {name}: {shown(one[name]) if name == 'key' else one[name]}")
        if "limits" in one:
            print(f"  limits: {', '.join(_told(one['limits'])) or 'none are said'}")


def _print_limits(probes: list[dict[str, Any]]) -> None:
    for one in probes:
        if "limits" in one:
            print(
                f"provider {one['provider']} grants uploads: {', '.join(_told(one['limits'])) or 'no limits are said'}"
            )


def _looked_at(session: Session, config: Config, *, online: bool) -> Iterator[str]:
    """Yields what does no harm until it is needed. Raises `Failure` for what keeps the daemon from working here, now."""
    from dumbwaiter.brokers import broker
    from dumbwaiter.files.ignore import rules

    if problem := next(_problems(config, session.places.config), None):
        raise Failure(problem, Exit.USAGE)
    handed = dict.fromkeys(whose for whose, source in config.secrets() if not online and _is_handed_over(source))
    for whose, source in config.secrets():
        if whose not in handed:
            source.read()
    for name, options in config.provider.items():
        if name not in handed:
            broker(options)  # looks at what its secrets are
    if handed:
        yield f"not looked at, as systemd alone hands it over: the secret of {', '.join(handed)}"
    for name, watch in config.watch.items():
        if wrong := unusable(session.places.config, name, watch.path):
            if os.path.lexists(watch.path) or name not in _seen(session):
                raise Failure(wrong, Exit.USAGE)
            yield f"watch.{name}: {watch.path} is not there, and is waited for: mount the disk that it is on"
        for why in rules(watch.path, watch.include, watch.exclude).unread:
            yield f"watch.{name}: {watch.path}/{why}"
    if config.mount.path is not None and (wrong := no_mount_point(session.places.config, config.mount.path)):
        yield f"no mount as it is: {wrong}"
    yield from exposed(session.places.config)
    for name, why in config.last_copies():
        yield f"{location(session.places.config, 'watch', name, 'after')} {why}"


def _is_handed_over(source: SecretSource) -> bool:
    """True for a secret that only a service gets."""
    return source.place[0] == "credential" and "CREDENTIALS_DIRECTORY" not in os.environ


def _seen(session: Session) -> set[str]:
    from dumbwaiter.report import seen_watches

    return seen_watches(session.reader, session.config.watch) if session.has_journal else set()


def _problems(config: Config, file: str) -> Iterator[str]:
    """Yields a sentence for whatever keeps the configuration from working on this machine, now."""
    from dumbwaiter.store.database import journal_url, reading

    if not config.provider:
        yield f"{file} has nothing to do: add a [provider.NAME] table, or have `dumbwaiter init --force` write one"
    for name, watch in config.watch.items():
        kind, _, folder = watch.after.partition(":")
        if kind == "move" and os.path.exists(folder) and not os.path.isdir(folder):
            yield f"{location(file, 'watch', name, 'after')} {shown(folder)} is no folder"
    if config.journal is not None:
        reading(journal_url("", config.journal)).dispose()  # without a connection: is there a driver


def _probe(provider: str) -> dict[str, Any]:
    return {"provider": provider, "taken": True, "size": 1, "key": "check.jpg"}


def _fate(session: Session, path: str) -> dict[str, Any]:
    """Returns what would happen to a file, and which rule decides."""
    from dumbwaiter.files.ignore import rules

    config = session.config
    absolute = placed(config, path)
    facts: dict[str, Any] = {"path": shown(path), "taken": False}
    facts |= dict.fromkeys(("watch", "provider", "reason", "size", "key", "rule"))
    for name, watch in config.watch.items():
        if absolute == watch.path:
            facts |= {"watch": name, "provider": watch.provider}
            return facts | {"reason": f"is the folder of watch {name}: name a file in it"}
        if not absolute.startswith(f"{watch.path}/"):
            continue
        inner = absolute[len(watch.path) + 1 :]
        chosen = rules(watch.path, watch.include, watch.exclude)
        facts |= {"watch": name, "provider": watch.provider, "reason": chosen.why(inner)}
        try:
            stamp = stamp_of_regular(os.lstat(absolute))
        except OSError as error:
            return facts | {"reason": error.strerror}
        if stamp is None:
            return facts | {"reason": "no regular file"}
        if why := out_of_reach(watch.path, inner):
            return facts | {"reason": why}
        if not os.access(absolute, os.R_OK):
            return facts | {"reason": "cannot be read by this user"}
        facts |= {"taken": chosen.takes(inner), "size": stamp.size}
        if facts["taken"]:
            facts |= _key(config, watch, name, inner)
        return facts | _known(session, watch, name, inner, stamp)
    reason = f"{'' if os.path.lexists(absolute) else 'is not there, and '}lies in no watched folder"
    return facts | {"reason": reason}


def _key(config: Config, watch: Watch, name: str, inner: str) -> dict[str, Any]:
    """Returns under which key a file would be uploaded now, and which rule says so."""
    from dumbwaiter.brokers import broker

    options = config.provider[watch.provider]
    wanted, rule = propose(inner), "its path below the watch"
    if watch.key is not None:
        rule = f'key = "{watch.key.text}"'
        if "{uuid" in watch.key.text:
            rule += ", with another UUID for each upload"
        with open(os.path.join(watch.path, inner), "rb") as file:
            wanted = watch.key.key(Subject(name, inner, file.fileno(), time.time(), inner))
    if any(_is_handed_over(source) for source in secrets(options)):
        return {"key": None, "rule": UNTOLD}
    key = broker(options).key(wanted, named=watch.key is not None)
    if key is None:
        return {"key": None, "rule": why_no_keys(options) or NO_KEY}
    return {"key": key, "rule": rule}


def _known(session: Session, watch: Watch, name: str, inner: str, stamp: Stamp) -> dict[str, Any]:
    """Returns what became of this very version of a file already, or whether its content tells if it is another."""
    from dumbwaiter.lifecycle import REPLACED, UNSENT
    from dumbwaiter.report import jobs_of

    jobs, compared = [], False
    with suppress(Failure, JournalTrouble):  # what the rules say is true without it
        if session.has_journal:
            jobs = jobs_of(session.reader, name, inner)
            compared = _is_compared(session, watch, name, inner, stamp)
    job = next((one for one in jobs if one.provider == watch.provider and one.stamp == stamp), None)
    if job is None or (job.state is State.SUPERSEDED and job.error in {*UNSENT, REPLACED}):
        return {"compared": True} if compared else {}
    if job.state is State.REJECTED:
        return {"taken": False, "reason": f"refused as it is: {job.error}; dumbwaiter retry {job.id} tries it again"}
    if job.state is State.SUPERSEDED:
        return {"taken": False, "reason": f"left alone as it is: {job.error}; dumbwaiter put --again sends it"}
    key = job.key or job.proposed
    return {"state": job.state.value} | ({"key": key} if key else {})


def _is_compared(session: Session, watch: Watch, name: str, inner: str, stamp: Stamp) -> bool:
    from dumbwaiter.store.database import host_of
    from dumbwaiter.store.folders import Folders

    folder, file = split(inner)
    host = host_of(session.places.state) or ""
    known = Folders(session.reader, host).known(name, folder, watch.provider, [file]).get(file)
    return known is not None and known.stamp != stamp and known.may_be(stamp, watch.after)


async def _ask_providers(config: Config, facts: list[dict[str, Any]], state: str) -> Exit:
    """Asks for a grant for each file that would be taken, or for a name of our own; notes what each would meet."""
    from dumbwaiter.brokers import broker
    from dumbwaiter.files.mime import mime_by_name
    from dumbwaiter.model import Ask
    from dumbwaiter.net.http import Http
    from dumbwaiter.providers.provider import Provider
    from dumbwaiter.store.database import host_of

    async def requested(_count: int) -> None:
        pass

    worst = Exit.DONE
    http = Http()
    try:
        for one in facts:
            if not one["taken"]:
                continue
            asked = broker(config.provider[one["provider"]])
            asked.own, asked.aside = f"{host_of(state) or state}/{one['provider']}", True
            provider = Provider(one["provider"], asked, http, requested=requested)
            name = one["key"] or one["path"].rpartition("/")[2]
            mime = mime_by_name(name)
            named = "rule" in one and one["key"] is not None
            ask = Ask(one.get("watch", "put"), name, name, one["size"], mime, seed="check", named=named)
            try:
                grant = await provider.grants.obtain(ask)
            except Verdict as verdict:
                one |= {"taken": False, "reason": f"provider {one['provider']}: {verdict}"}
                of_account = isinstance(verdict, Reject) and "path" not in one
                worst = max(worst, Exit.ATTENTION if of_account else exit_of(verdict))
                continue
            one["limits"] = _limits(grant)
            if named and "state" not in one:
                one["key"] = grant.key  # with what the provider puts before it
    finally:
        await http.close()
    return worst


def _told(limits: dict[str, Any]) -> Iterator[str]:
    if limits["size_min"] is not None:
        yield f"at least {size(limits['size_min'])}"
    if limits["size_max"] is not None:
        yield f"at most {size(limits['size_max'])}"
    if limits["mime"]:
        yield " or ".join(limits["mime"])
    if limits["expires_at"] is not None:
        yield f"until {when(limits['expires_at'])}"


def _limits(grant: Any) -> dict[str, Any]:
    limits = grant.limits
    return {
        "size_min": limits.size_min,
        "size_max": limits.size_max,
        "mime": list(limits.mime),
        "expires_at": grant.expires_at,
    }
