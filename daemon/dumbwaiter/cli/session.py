"""What every command starts from: places, configuration, journal, daemon, and the two ways to print."""

import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from dumbwaiter.errors import Exit, Failure, NoDaemon
from dumbwaiter.naming import in_json, legible, shown
from dumbwaiter.places import chosen, daemon_runtime, places

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from dumbwaiter.app import App
    from dumbwaiter.catalog import Catalog
    from dumbwaiter.client import Connection
    from dumbwaiter.config import Config
    from dumbwaiter.model import Entry

ANSWER = 20.0  # seconds until whoever is asked how things are does not answer
UNKNOWN = "Object contains unknown field"  # in what a daemon says to a request of which it does not know all
LONG = 60.0  # and who is to do something, or goes on telling

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
        from dumbwaiter.config import nested, within
        from dumbwaiter.config.file import load
        from dumbwaiter.files.ignore import rules

        config = load(self.places.config)
        sources = [source for _, source in config.secrets()]
        secret = {source.file or self.places.config for source in sources if source.place[0] in {"file", "literal"}}
        for name, watch in config.watch.items():
            for path in secret:
                inner = within(path, watch.path)
                if inner is not None and rules(watch.path, watch.include, watch.exclude).takes(inner):
                    raise Failure(
                        f"watch.{name} would upload {path}, which holds a secret: name it in exclude, or keep it elsewhere",
                        Exit.USAGE,
                    )
            for what, own in (
                ("state", self.places.state),
                ("cache", self.places.cache),
                ("runtime", self.places.runtime),
            ):
                if nested(own, watch.path):
                    raise Failure(
                        f"the {what} folder {own} and the folder of watch.{name}, {watch.path}, lie in one another: "
                        f"dumbwaiter would upload its own files; give --{what} another folder",
                        Exit.USAGE,
                    )
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
        import http.client

        from dumbwaiter.client import Connection

        patience = ANSWER if method == "GET" else LONG
        connection = Connection(
            self.places.socket,
            self.places.state,
            min(patience, max(0.01, end - time.monotonic())) if end else patience,
        )
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # who takes no more may have said why
                connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            if connection.sock is not None and not end:
                connection.sock.settimeout(LONG)
            said = False
            for line in _lines(response, connection, end):
                if response.status != 200:
                    raise _refusal(response.status, line)
                value = json.loads(line, object_hook=_Answer)
                said = True
                yield value
            if not said and not (end and time.monotonic() >= end):
                raise ConnectionError("it ended without an answer")
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            if daemon_runtime(self.places.state) is not None:
                raise NoDaemon(self.in_use(by_daemon=True)) from None
            raise NoDaemon("the daemon is not running: start it with `dumbwaiter run`") from None
        except PermissionError:
            raise Failure(
                f"{shown(self.places.socket)} is closed to this user: name another folder with --state or --runtime",
                Exit.USAGE,
            ) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            if end is not None and time.monotonic() >= end:
                return
            if isinstance(error, TimeoutError):
                raise Failure("the daemon does not answer", Exit.TEMPORARY) from None
            raise Failure(f"the daemon broke off: {error}", Exit.TEMPORARY) from None
        finally:
            connection.close()

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

    def in_use(self, *, by_daemon: bool) -> str:
        """Says who has the state folder, of whom nothing is heard where the daemon would be."""
        if not by_daemon:
            return "another `dumbwaiter put` is at work: try again"
        return (
            f"a daemon has {shown(self.places.state)} and does not listen at {shown(self.places.socket)}: it is starting or "
            "stopping, or this command has another --runtime; if its socket was removed, it makes it anew in a moment"
        )

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Has the state folder meanwhile. Raises `Failure` while somebody else has it."""
        from dumbwaiter.installation import open_lock

        lock = open_lock(self.places)
        try:
            if not await lock.acquire():
                raise Failure(self.in_use(by_daemon=lock.held_by_daemon), Exit.TEMPORARY)
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


class _Answer(dict[str, Any]):
    """What a daemon says. Raises `Failure` for what it does not say, which one of this version would."""

    def __missing__(self, key: str) -> NoReturn:
        raise _of_another_version()


def _of_another_version() -> Failure:
    return Failure("the daemon is of another version than this command: restart it")


def _refusal(status: int, line: bytes) -> Failure:
    """Returns what the daemon says to a request; it does not know every one of another version's."""
    try:
        value = json.loads(line)
        sentence, code = str(value["error"]), Exit(value["code"])
    except (ValueError, KeyError, TypeError):
        return _of_another_version()
    return _of_another_version() if status in {404, 405} or UNKNOWN in sentence else Failure(sentence, code)


def _lines(response: Iterable[bytes], connection: "Connection", end: float | None) -> Iterator[bytes]:
    for line in response:
        if line.strip():
            yield line
        if end is not None and connection.sock is not None:
            connection.sock.settimeout(max(0.01, end - time.monotonic()))
