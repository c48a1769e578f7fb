"""The nouns: values that travel between modules. Nothing here does anything.

Paths are text with undecodable bytes as surrogates (what `os.fsdecode` gives), separated by "/", and relative to
the folder of their watch. Times are seconds since the epoch, sizes are bytes.
"""

import os
import stat
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import force_setattr, replace

from dumbwaiter.naming import join, legible

KIB = 1024
MIB = 1024 * KIB
LATEST = 2**63 / 1e9  # seconds that a database's integer can count in nanoseconds
UNKNOWN = "application/octet-stream"  # the type of what neither name nor content tells anything of


class Secret:
    """A text that never shows itself; `reveal` is the only way to it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


_MOST = 0x7FFF_FFFF_FFFF_FFFF
_SECOND = 1_000_000_000  # nanoseconds


class Stamp(NamedTuple):
    """Names one version of a file's bytes."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Stamp":
        return cls.numbered(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    @classmethod
    def numbered(cls, inode: int, size: int, mtime_ns: int, ctime_ns: int) -> "Stamp":
        # Some file systems number, and date (before 1678, from 2262 on), beyond what a database's integer holds.
        return cls(inode & _MOST, size, *(max(-_MOST, min(time, _MOST)) for time in (mtime_ns, ctime_ns)))

    @property
    def coarse(self) -> bool:
        """True where the file system dates in whole seconds: what is written within one does not show.

        A date that was set is no sign of that: the ctime cannot be.
        """
        return not (self.mtime_ns % _SECOND or self.ctime_ns % _SECOND)

    def same_bytes(self, other: "Stamp") -> bool:
        """True when all but ctime is the same: a ctime that moved alone is a matter of names and rights, not of bytes."""
        return self[:3] == other[:3]

    def same_size_and_mtime(self, other: "Stamp") -> bool:
        """True when both are the same: a copy with the times of its original, or a file that was renamed."""
        return self[1:3] == other[1:3]

    def same_but_touched(self, other: "Stamp") -> bool:
        """True when size and mtime are the same, and not all is: chmod, a rename, a file system that numbers anew.

        The digest decides what that was.
        """
        return self.same_size_and_mtime(other) and self != other


def stamp_of_regular(status: os.stat_result) -> Stamp | None:
    """Returns the stamp of a regular file, None for anything else."""
    return Stamp.of(status) if stat.S_ISREG(status.st_mode) else None


class Sighting(NamedTuple):
    """This path may have changed. Losing one is harmless: the next scan repeats it."""

    watch: str
    path: str
    closed: bool = False  # its writer closed it, or it was moved here whole
    old: bool = False  # nothing had happened to it for a long time when a scan came by


class State(StrEnum):
    """What is true of the remote. Who is at work says the lease."""

    PENDING = "pending"
    STORED = "stored"
    DONE = "done"
    REJECTED = "rejected"
    SUPERSEDED = "superseded"


def browsable(url: str) -> bool:
    """True for a link that a person may be given: of the web, with nothing in it that a terminal would obey."""
    return url.lower().startswith(("http://", "https://")) and legible(url) == url


class Receipt(Struct, frozen=True, omit_defaults=True):
    """What the remote says it has."""

    key: str
    etag: str = ""
    url: str | None = None
    verified: str = ""  # how the bytes were compared: "md5", "size", ...; empty when the vendor offers nothing
    facts: dict[str, str] = {}
    label: str = ""  # of a result that the provider made: "watermark" stands beside photo.jpg as photo.watermark.jpg
    size: int | None = None  # of a result

    def with_facts(self, **facts: object) -> "Receipt":
        """Returns the same with more facts, as text."""
        return replace(self, facts={**self.facts, **{name: str(value) for name, value in facts.items()}})

    @property
    def plain(self) -> "Receipt":
        """The same, with nothing in it that a terminal would obey or a database refuse; a link of that kind is none."""
        url = self.url if self.url is not None and browsable(self.url) else None
        facts = {name: legible(value) for name, value in self.facts.items()}
        size = self.size if self.size is not None and 0 <= self.size < 1 << 63 else None
        key = self.key.replace("\0", "\\x00")
        return replace(self, key=key, etag=legible(self.etag), url=url, facts=facts, size=size)

    @property
    def lacks(self) -> str:
        """What was wanted and did not come, in a sentence, although the file is there; empty if nothing."""
        facts = self.facts
        if "follow_up" in facts:
            return facts["follow_up"]
        said = facts.get("shop_said") or facts.get("callback_said") or facts.get("taskMessage") or ""
        said = said and f": {said}"
        if "callback" in facts or facts.get("registered") in {"no", "unknown"}:
            return f"the provider has the file, and its application may not know of it{said}"
        if "size_at_provider" in facts:
            return f"the provider has the file, and says that it has {facts['size_at_provider']} bytes there"
        if "hash_at_provider" in facts:
            return f"the provider has the file, and says that its hash there is {facts['hash_at_provider']}, which is not this file's"
        if facts.get("taskStatus", "done") != "done":
            return f'the provider has the file, and what was to be made of it is "{facts["taskStatus"]}"{said}'
        if facts.get("detectStatus") in {"failed", "suspected"}:
            details = facts.get("detectMessage", "")
            return f'the provider has the file, and its inspection says "{facts["detectStatus"]}"{details and f": {details}"}'
        return ""


class Job(Struct, frozen=True):
    """The durable intent to bring one version of one file to one provider."""

    id: int
    watch: str
    path: str
    provider: str
    stamp: Stamp
    state: State
    key: str | None = None
    by_hand: bool = False  # a person ordered it: no window holds it up
    proposed: str | None = None  # the key settled by the watch's rules, where the provider takes one
    grant: str | None = None  # the session ticket as stored, owner-only, until the job ends
    checkpoint: str | None = None
    receipt: Receipt | None = None
    digest: str | None = None
    sent: int = 0
    resent: int = 0
    attempts: int = 0
    due_at: float = 0.0
    leased: bool = False
    cut_off: bool = False  # whoever worked on it ended without a word
    error: str | None = None
    created_at: float = 0.0
    updated_at: float = 0.0

    @property
    def size(self) -> int:
        return self.stamp.size

    @property
    def place(self) -> str:
        """WATCH/path, as people know the file."""
        return join(self.watch, self.path)


class Entry(Struct, frozen=True):
    """One line of the catalog: what is at a provider, and which file it was.

    Without a watch it is none of ours: the provider's own list shows it.
    """

    id: int
    provider: str
    key: str
    watch: str
    path: str
    stamp: Stamp
    stored_at: float
    url: str | None = None
    etag: str = ""
    verified: str = ""
    facts: Mapping[str, str] = {}
    unlisted_at: float | None = None  # when the provider's list was first found without it
    digest: str | None = None  # of the content, where we had it: see `digest`

    @property
    def size(self) -> int:
        return self.stamp.size

    @property
    def place(self) -> str:
        """WATCH/path, as people know the file; PROVIDER/key of one that is none of ours."""
        return join(self.watch, self.path) or join(self.provider, self.key)

    @property
    def name(self) -> str:
        """The file's own name: here, else as the provider shows it, else its key's."""
        return (self.path or self.facts.get("name") or self.key).rpartition("/")[2]


class Listed(Struct, frozen=True):
    """One object in a provider's own list."""

    key: str
    size: int
    stored_at: float
    changed_at: float
    etag: str = ""
    url: str | None = None
    facts: dict[str, str] = {}


class Page(Struct, frozen=True):
    """A piece of a provider's list, and where the next one begins. None: that was all."""

    items: tuple[Listed, ...]
    cursor: str | None
    whole: bool = True  # False: the list changed while it was read, and something may have been passed over


class Ask(Struct, frozen=True):
    """What a broker needs to know of a file to get it a grant."""

    watch: str
    path: str  # below the watch, as UTF-8 can say it
    key: str  # proposed; the broker may prefix or replace it
    size: int
    mime: str
    seed: str  # of the job: the same at every attempt, and no other job's
    held: str | None = None  # the key of an earlier attempt, to be kept where a grant covers it
    named: bool = False  # `key` is settled by the watch's rules, and journalled
    fresh: bool = False  # nothing may be replaced under it
    place: str = ""  # "WATCH/path", byte for byte as the journal has it

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.path.rpartition("/")[2]


class Limits(Struct, frozen=True):
    """What a grant says it will accept. None: nothing said."""

    size_min: int | None = None
    size_max: int | None = None
    mime: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()  # of names, in lower case, without the dot


class Grant(Struct, frozen=True):
    """Permission to upload. `ticket` is what the transport needs; its type joins broker and transport."""

    ticket: Any
    key: str | None  # None: the provider names the object when it has it
    expires_at: float | None = None  # None: not said, or no time
    limits: Limits = Limits()
    many: bool = False  # good for any number of files until it expires

    def __post_init__(self) -> None:
        if self.expires_at is not None and not 0 <= self.expires_at < LATEST:  # a vendor may say "Infinity"
            force_setattr(self, "expires_at", None)


class Link(Struct, frozen=True):
    """Where a file can be read, for a time."""

    url: str
    expires_at: float | None = None  # on our clock; None: not said


class FollowUp(Struct, frozen=True):
    """What came of a follow-up: the receipt as it is now, and, if there is more to do, in how many seconds.

    `results` are objects that the provider made of the file; each has a label.
    """

    receipt: Receipt
    results: tuple[Receipt, ...] = ()
    later: float | None = None
    error: str | None = None
    blocked: bool = False  # the error is of the account: the provider rests until a person acted
