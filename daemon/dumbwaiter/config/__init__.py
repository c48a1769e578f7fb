"""What a configuration may hold: frozen structs, with what is the same for every one of their users.

`config.file` reads and checks them. A secret stays where it is until `SecretSource.read` is called by the one who needs it.
"""

import os
import re
import threading
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Literal

from msgspec import Struct, field

from dumbwaiter.config.options import Provider, secrets, why_no_reading_back
from dumbwaiter.config.timetable import Timetable
from dumbwaiter.config.values import Duration, HostPattern, Listen, RequestUrl, SecretSource, SigningSecret, Size, Token
from dumbwaiter.config.window import Window
from dumbwaiter.files.roots import on_disk
from dumbwaiter.keys import Template
from dumbwaiter.naming import nearest
from dumbwaiter.wire.recipe import BLANK

HOOKS = ("on_done", "on_failed", "on_attention")
A_HOOK = 'a hook is either ["program", "argument", …], or { url = "https://…", secret = … }; no line for a shell'
HOOK_BLANKS = ("event", "path", "name", "watch", "provider", "key", "url", "etag", "size", "error")
ANSWER = 2.0  # seconds that a disk is waited for
RESERVED = "put"  # the watch of files named on the command line


class Hook(Struct, frozen=True, forbid_unknown_fields=True):
    """Who is told: a program, or whoever answers at an address."""

    command: list[str] = []  # a program and its arguments, with blanks
    url: RequestUrl | None = None
    secret: SigningSecret | None = None  # signs what goes there
    timeout: Duration = Duration(30)

    def __post_init__(self) -> None:
        if bool(self.command) == (self.url is not None):
            raise ValueError(A_HOOK)
        if self.url is not None and self.secret is None:
            raise ValueError("a webhook is signed: give it a secret")
        script = self._script()
        for word in self.command:
            for blank in BLANK.findall(word):
                if word is script:
                    raise ValueError(
                        f"{{{blank}}} would be read as part of the script, whatever stands in it: "
                        f'write "$DUMBWAITER_{blank.upper()}" there'
                    )
                if blank not in HOOK_BLANKS:
                    raise ValueError(f"unknown blank {{{blank}}}{nearest(blank, HOOK_BLANKS)}")

    def _script(self) -> str | None:
        """The word that a shell, or the like, reads as a program."""
        if self.command and re.fullmatch(r"(ba|da|fi|k|z)?sh|python[\d.]*", os.path.basename(self.command[0])):
            for option, word in pairwise(self.command):
                if re.fullmatch(r"-\w*c", option):
                    return word
        return None


class Watch(Struct, frozen=True, forbid_unknown_fields=True):
    """A folder, what is taken from it, and where that goes."""

    path: str
    provider: str
    include: list[str] = []
    exclude: list[str] = []
    settle: Duration = Duration(2)
    rescan: Duration = Duration(900)
    polling: Literal["auto"] | bool = "auto"
    key: Template | None = None  # none: the path, where the provider lets us name objects
    after: str = "keep"  # or "trash", "delete", "move:DIR"
    on_done: list[str] | Hook | None = None
    on_failed: list[str] | Hook | None = None
    on_attention: list[str] | Hook | None = None
    window: Window | None = None  # none: at any hour
    on_conflict: Literal["rename", "replace", "skip", "refuse"] = "rename"
    duplicates: Literal["link", "send"] = "link"  # content that the provider has already

    def __post_init__(self) -> None:
        for event in HOOKS:
            try:
                self.hook(event)  # a list is checked as a hook is
            except ValueError as error:
                raise ValueError(f"{error} - at `$.{event}`") from None

    def hook(self, event: str) -> Hook | None:
        """Returns who is told of "on_done", "on_failed" or "on_attention"."""
        value: list[str] | Hook | None = getattr(self, event)
        return Hook(value) if isinstance(value, list) else value


class Notify(Struct, frozen=True, forbid_unknown_fields=True):
    """Who is told beside the hooks."""

    desktop: bool = False


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """How much at once."""

    transfers: int = 4  # files
    parts: int = 4  # parts of one file, where the vendor takes them in any order
    bandwidth: Timetable = Timetable("off")  # bytes a second of all uploads together
    requests: dict[str, float] = {}  # a second, by provider; its broker's own rate where nothing is said


class Network(Struct, frozen=True, forbid_unknown_fields=True):
    """Where connections may lead."""

    inside: tuple[
        HostPattern, ...
    ] = ()  # hosts that may be in our own network though only a vendor's answer names them


class Mount(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the catalog is shown."""

    path: str | None = None
    allow_other: bool = False
    cache_size: Size = Size(10 << 30)  # of blocks fetched from providers; 0: none are kept
    session: Literal["auto", "fusepy", "fast"] = "auto"


class Web(Struct, frozen=True, forbid_unknown_fields=True):
    """The page: where it is served, and what whoever opens it has to know."""

    listen: Listen | None = None
    token: Token | None = None
    metrics: bool = False  # Prometheus' text too, at /api/metrics


class Log(Struct, frozen=True, forbid_unknown_fields=True):
    """What is told, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """A checked configuration; paths are absolute."""

    provider: dict[str, Provider] = {}
    watch: dict[str, Watch] = {}
    journal: str | None = None
    limits: Limits = field(default_factory=Limits)
    network: Network = field(default_factory=Network)
    mount: Mount = field(default_factory=Mount)
    log: Log = field(default_factory=Log)
    notify: Notify = field(default_factory=Notify)
    web: Web = field(default_factory=Web)

    def closed(self, now: float) -> dict[str, float]:
        """Returns when the window of each watch opens that is outside of it."""
        windows = {name: watch.window for name, watch in self.watch.items() if watch.window is not None}
        opens = {name: window.opens_at(now) for name, window in windows.items()}
        return {name: when for name, when in opens.items() if when is not None}

    def secrets(self) -> Iterator[tuple[str, SecretSource]]:
        """Yields where every secret is, and whose it is."""
        for name, options in self.provider.items():
            yield from ((name, source) for source in secrets(options))
        if self.web.token is not None:
            yield "the page", self.web.token
        for name, watch in self.watch.items():
            for event in HOOKS:
                if (hook := watch.hook(event)) is not None and hook.secret is not None:
                    yield f"watch {name}'s {event}", hook.secret

    def last_copies(self) -> Iterator[tuple[str, str]]:
        """Yields every watch that takes away what cannot be read back afterwards, and as a sentence why."""
        for name, watch in self.watch.items():
            if watch.after != "keep" and (why := why_no_reading_back(self.provider[watch.provider])):
                yield name, f'after = "{watch.after}" takes away the only copy that can be read: {why}'

    def folder_of(self, watch: str) -> str | None:
        """Returns the folder that a watch's paths are relative to, None for a watch that is no longer configured."""
        if watch == RESERVED:
            return "/"
        known = self.watch.get(watch)
        return known.path if known else None


def absolute(path: str, folder: str = "") -> str:
    """Returns `path` with "~" expanded, absolute, without a trailing slash; a relative one lies in `folder`."""
    return os.path.abspath(os.path.join(folder, os.path.expanduser(path)))


def nested(one: str, other: str) -> bool:
    """True when one folder is the other or lies in it, links and second names (`mount --bind`) resolved."""
    one, other = _resolved(one), _resolved(other)
    if os.path.commonpath([one, other]) in {one, other}:
        return True
    (disk, one), (other_disk, other) = _on_disk(one), _on_disk(other)
    return disk == other_disk and os.path.commonpath([one, other]) in {one, other}


@cache
def _on_disk(path: str) -> tuple[str, str]:
    return on_disk(path)


@cache
def _resolved(path: str) -> str:
    """Returns a path without links, as far as its disk answers: a dead one must not hold up who only reads."""
    found: list[str] = []
    asker = threading.Thread(target=lambda: found.append(_followed(path)), daemon=True)
    asker.start()
    asker.join(ANSWER)
    return found[0] if found else path


def within(path: str, folder: str) -> str | None:
    """Returns what a path is called below a folder, links resolved; None for one that lies elsewhere."""
    path, folder = _resolved(path), _resolved(folder)
    return os.path.relpath(path, folder) if path.startswith(os.path.join(folder, "")) else None


def _followed(path: str, links: int = 40) -> str:
    """Follows links. Of the folder itself nothing else is asked."""
    path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    try:
        target = os.readlink(path)
    except OSError:
        return path
    return _followed(os.path.join(os.path.dirname(path), target), links - 1) if links else path
