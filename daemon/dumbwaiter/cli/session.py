"""What every command starts from: places, configuration, journal, daemon, and the two ways to print."""

import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dumbwaiter.cli.answers import answers, in_use
from dumbwaiter.errors import Exit, Failure, NoDaemon
from dumbwaiter.naming import in_json, legible, shown
from dumbwaiter.places import Places, chosen, places

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from dumbwaiter.app import App
    from dumbwaiter.catalog import Catalog
    from dumbwaiter.config import Config
    from dumbwaiter.model import Entry

F = TypeVar("F", bound=Callable[..., Any])


def json_option(command: F) -> F:
    """Lets `--json` stand behind the command too."""

    def set_json(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
        if value:
            ctx.obj.json = True

    return click.option("--json", is_flag=True, expose_value=False, callback=set_json, help="Print facts as JSON.")(
        command
    )


def not_empty(_ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """A callback of what takes a word: refuses an empty one, as a script makes of a variable that is not set."""
    if "" in (value if isinstance(value, tuple) else (value,)):
        word = parameter.opts[0] if isinstance(parameter, click.Option) else parameter.human_readable_name
        raise Failure(f"{word} is empty, and names nothing", Exit.USAGE)
    return value


class Session:
    """One call of the program."""

    def __init__(
        self,
        config: str | None,
        state: str | None,
        cache: str | None,
        runtime: str | None,
        *,
        as_json: bool,
        verbose: bool,
        quiet: bool,
    ) -> None:
        self.places = places(config, state, cache, runtime)
        flags = {"CONFIG": config, "STATE": state, "CACHE": cache, "RUNTIME": runtime}
        self.chosen = {kind: path for kind, flag in flags.items() if (path := chosen(flag, kind))}
        self.json = as_json
        self.verbose = verbose
        self.quiet = quiet

    @cached_property
    def config(self) -> "Config":
        """The checked configuration. Raises `Failure`."""
        from dumbwaiter.config.file import load

        config = load(self.places.config)
        _check_own_files(config, self.places)
        return config

    @property
    def level(self) -> str:
        """The log level: as asked for here, else as configured."""
        if self.verbose:
            return "debug"
        return "warning" if self.quiet else self.config.log.level

    def mute_log(self) -> None:
        """Logs nothing but with --verbose: the command itself says what came of it."""
        from dumbwaiter import log

        log.configure("debug" if self.verbose else "critical", self.config.log.format)

    @cached_property
    def reader(self) -> "Engine":
        """The journal, to read. Raises `Failure` when there is none yet, or a newer program's."""
        from dumbwaiter.store.database import host_of, journal_url, reading
        from dumbwaiter.store.upgrade import check_known

        if not self.has_journal:
            raise Failure(f"there is no journal in {self.places.state}: nothing was uploaded yet", Exit.FAILED)
        reader = reading(journal_url(self.places.state, self.config.journal), host_of(self.places.state) or "")
        check_known(reader)
        return reader

    @cached_property
    def has_journal(self) -> bool:
        """Whether there is a journal; without one nothing was uploaded yet. Raises `Failure` when there was one."""
        from dumbwaiter.store.database import journal_exists, journal_url

        return journal_exists(self.places.state, journal_url(self.places.state, self.config.journal))

    @cached_property
    def catalog(self) -> "Catalog":
        from dumbwaiter.catalog import Catalog

        return Catalog(self.reader)

    # Printing

    def say(self, text: str) -> None:
        """Talk, for a person; not with --quiet."""
        if not self.quiet:
            print(legible(text), file=sys.stderr, flush=True)

    def facts(self, value: Any) -> None:
        """One JSON document on stdout."""
        print(in_json(json.dumps(value, ensure_ascii=False)), flush=True)

    def list_facts(self, values: Iterable[Any]) -> None:
        """One JSON list on stdout, written as its values come: of very many, few are in memory."""
        before = "["
        for value in values:
            print(before, in_json(json.dumps(value, ensure_ascii=False)), sep="", end="")
            before = ", "
        print("[]" if before == "[" else "]", flush=True)

    # The daemon

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Asks the daemon. Raises `Failure`: with `NO_DAEMON` when none runs, or as the daemon says."""
        return next(self.follow(method, path, body))

    def follow(
        self, method: str, path: str, body: Any = None, *, end: float | None = None
    ) -> Generator[Any, None, None]:
        """Yields the daemon's answer line by line, as long as it goes on, or until `end` (of the monotonic clock)."""
        return answers(self.places, method, path, body, end=end)

    @cached_property
    def daemon_facts(self) -> dict[str, Any] | None:
        """What the daemon says of itself, without its jobs; None when none runs."""
        try:
            facts: dict[str, Any] = self.ask("GET", "/status?jobs=0")
        except NoDaemon:
            return None
        return facts

    def address(self, entry: "Entry", refused: str | None = None) -> str:
        """Returns where a file can be read: the catalogued url while it is good, else what the daemon gets.

        Raises `Failure`; with `NO_DAEMON` when none runs.
        """
        from dumbwaiter.wire.address import expires_at

        url, now = entry.url, time.time()
        if url is not None and refused is None and (expires_at(url) or now) >= now:
            return url
        try:
            return str(self.ask("POST", "/link", {"id": entry.id, "refused": refused or url})["url"])
        except NoDaemon:
            from dumbwaiter.brokers import gives_links

            options = self.config.provider.get(entry.provider)
            if options is not None and not gives_links(options):
                place, other = shown(entry.place), "other " if entry.url else ""
                raise Failure(f"{place}: the provider gives no {other}way to read it back") from None
            raise NoDaemon(
                f"{shown(entry.path or entry.key)}: the catalog has no link that is good now, and another one has to come from the "
                "daemon: start it with `dumbwaiter run`"
            ) from None

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Has the state folder meanwhile. Raises `Failure` while somebody else has it."""
        from dumbwaiter.installation import open_lock

        lock = open_lock(self.places)
        try:
            if not await lock.acquire():
                raise Failure(in_use(self.places, by_daemon=lock.held_by_daemon), Exit.TEMPORARY)
            yield
        finally:
            lock.close()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator["App"]:
        """Takes the daemon's place meanwhile. Raises `Failure` while somebody else has the state folder."""
        from dumbwaiter.app import open_app

        async with self.locked(), open_app(self.config, self.places) as app:
            yield app

    @property
    def running(self) -> bool:
        """Whether a daemon answers."""
        try:
            self.ask("GET", "/status?jobs=0")
        except NoDaemon:
            return False
        return True


def _check_own_files(config: "Config", places: Places) -> None:
    """Raises `Failure` where a watch would upload what is the program's own: a secret, or one of its folders."""
    from dumbwaiter.config import nested, within
    from dumbwaiter.files.ignore import rules

    sources = [source for _, source in config.secrets()]
    secret = {source.file or places.config for source in sources if source.place[0] in {"file", "literal"}}
    for name, watch in config.watch.items():
        for path in secret:
            inner = within(path, watch.path)
            if inner is not None and rules(watch.path, watch.include, watch.exclude).takes(inner):
                raise Failure(
                    f"watch.{name} would upload {path}, which holds a secret: name it in exclude, or keep it elsewhere",
                    Exit.USAGE,
                )
        for what, own in (
            ("state", places.state),
            ("cache", places.cache),
            ("runtime", places.runtime),
        ):
            if nested(own, watch.path):
                raise Failure(
                    f"the {what} folder {own} and the folder of watch.{name}, {watch.path}, lie in one another: "
                    f"dumbwaiter would upload its own files; give --{what} another folder",
                    Exit.USAGE,
                )
