"""Which files of a watch are taken: the junk list, the watch's include and exclude, the folder's own ignore file.

All are gitignore patterns and later ones overrule earlier ones, so a person takes a name back from the junk list with
`!*.tmp` in exclude. As with git, nothing inside an ignored folder is taken; that is what allows a scan to leave it
out. Paths are relative to the watch and may hold any character a file name can, newlines and surrogates included.
"""

import errno
import os
import re
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

import xxhash
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from dumbwaiter.errors import Exit, Failure
from dumbwaiter.files.writers import others_may_write

IGNORE_FILE = ".dumbwaiterignore"
PRIVATE = ".dumbwaiter-after-"  # how the names begin that files have while something is done to them; of no watch

JUNK: tuple[str, ...] = (
    "*.part",
    "*.crdownload",
    "*.partial",
    "*.filepart",
    "*.download",
    "*.tmp",
    "*.aria2",
    "*.opdownload",
    "*.downloading",  # Baidu Netdisk
    "*.xltd",  # Thunder
    "*.xltd.cfg",
    "*.!qB",  # qBittorrent
    "*.!ut",  # uTorrent
    ".pending-*",  # Android: a picture that is being taken
    ".trashed-*",  # and one that was deleted
    "~$*",  # Office: owner of an open document
    ".~lock.*#",  # LibreOffice: the same
    "*~",
    r"\#*#",  # Emacs: unsaved changes
    ".*.sw[opx]",  # vim: swap files
    ".sw[opx]",
    ".*.kate-swp",  # Kate: unsaved changes
    "4913",  # vim: may a file be made here?
    "!4913/",  # a folder of that name is somebody's
    ".goutputstream-*",  # GLib: written, then renamed
    ".*." + "[0-9A-Za-z]" * 6,  # rsync: the same
    ".rsync-partial/",
    ".in.*.",  # proftpd: uploads
    ".DAV/",  # Apache: properties
    ".davfs.tmp*",
    "*.lftp-pget-status",
    "*.ytdl",  # yt-dlp: how much of a film there is
    ".stfolder/",  # Syncthing
    ".stversions/",
    ".sync_*.db*",  # Nextcloud: what it knows of the folder
    ".*.~[0-9a-f]*",  # Nextcloud: half a download, and a whole one until it is renamed
    ".nextcloudsync.log",
    ".owncloudsync.log",
    ".dropbox",
    ".dropbox.cache/",
    ".fuse_hidden*",
    ".nfs*",
    ".DS_Store",
    "._*",  # macOS: a file's attributes, on disks that have none
    ".Spotlight-V100/",
    ".fseventsd/",
    ".TemporaryItems/",
    ".DocumentRevisions-V100/",
    "Thumbs.db",
    "desktop.ini",
    "System Volume Information/",
    ".directory",  # Dolphin: how it shows the folder
    ".Trash/",
    ".Trash-*/",
    ".Trashes/",
    "$RECYCLE.BIN/",
    "**/.local/share/Trash/",
    "lost+found/",
    ".dumbwaiter*",
)

# As git reads it: a backslash takes what follows as it is, a range takes what follows its dash, and a class its own bracket.
_ONE = r"(?:\\.|[^\\\]])"
_BRACKET = re.compile(rf"\\.|\[([!^]?+)((?:\](?:-{_ONE})?+)?+(?:\[:[^\]]*:\]|{_ONE}(?:-{_ONE})?+)*+)\]|\[", re.DOTALL)
_MEMBER = re.compile(rf"\[:([^\]]*):\]|(\\.|.)(?:-({_ONE}))?", re.DOTALL)
_PLACES = range(0xD800, 0xDC00)  # characters of no text, each for a bracket while pathspec reads the rest
_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": " \t",
    "cntrl": "\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "0-~!-.",  # no bracket matches a slash
    "lower": "a-z",
    "print": " -.0-~",
    "punct": ":-@[-`{-~!-.",
    "space": " \t\n\r",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}
_ANYWHERE = "^(?:.+/)?"
# What stands between two "*" of a level, or two "**", is found where it comes first: there is no need to try again, and
# with some file names trying would never end.
_STAR, _LETTER = r"\[\^/\]\*", r"(?:\\.|\[\^?+\]?+(?:\\.|[^]\\])*+\](?!\*)|[^][\\/()|?*+{}^$.])"
_BETWEEN_STARS = re.compile(rf"{_STAR}({_LETTER}++)(?={_STAR})", re.DOTALL)
_LEVELS, _DEEP = r"((?:(?!\(\?:).)+?)", r"\(\?:/\.\+\)\?/"
_AFTER_DEEP = re.compile(rf"{_DEEP}{_LEVELS}(?={_DEEP})", re.DOTALL)
_BEFORE_DEEP = re.compile(rf"{re.escape(_ANYWHERE)}{_LEVELS}(?={_DEEP})", re.DOTALL)
_LONG = 1024  # characters of a pattern
_LONGEST, _MOST = 1 << 16, 1000  # bytes and lines of an ignore file
_TOLD = 40  # characters of a line that is none
_REMEMBERED = 4096  # remembered verdicts on folders


class _Line(NamedTuple):
    """One pattern and where it stands."""

    origin: str
    pattern: str
    regex: str
    takes: bool  # False for "!pattern"

    @property
    def of_names(self) -> bool:
        """True when the pattern looks at a name and not at the way to it."""
        body = self.pattern.removeprefix("!").rstrip("/ ")
        return "/" not in body and self.regex.startswith((_ANYWHERE, "."))


def _regex(source: str) -> str:
    """Turns a pattern's expression, made to find it somewhere along a path, into one for exactly one level."""
    plain = once(source.replace("(?P<ps_d>", "(?:"))
    head = "" if plain.startswith("^") else ".*"  # "*" and "*/" come as "." and "(?:/)"
    tail = ".+" if plain.endswith("/") else ""  # "a/**": everything inside, the folder itself not
    return head + plain + tail


def once(plain: str) -> str:
    """Has an expression find the parts of a pattern without going back, which finds the same."""
    plain = re.sub(rf"(?:{_STAR})+", "[^/]*", plain)  # git: "a***b" is "a*b"
    plain = _BETWEEN_STARS.sub(r"(?>[^/]*?\1)", plain)
    plain = _BEFORE_DEEP.sub(r"^(?>(?:.+?/)??\1(?=/))", plain)
    return _AFTER_DEEP.sub(r"(?>(?:/.+?)??/\1(?=/))", plain)


def _bracket(negated: str, members: str) -> str:
    """Returns the expression for a bracket. Raises `ValueError` for one that matches nothing."""
    ranges = []
    for named, first, last in _MEMBER.findall(members):
        if not first and named not in _CLASSES:
            raise ValueError(f"there is no class {named!r}")
        low = first[-1:]
        if last and last[-1] < low:
            raise ValueError("a range ends before it begins")
        ranges += [re.escape(low) or _CLASSES[named]] if low != "/" else []
        for begin, end in ((low, min(last[-1:], ".")), (max(low, "0"), last[-1:])):
            ranges += [f"{re.escape(begin)}-{re.escape(end)}"] if last and begin <= end else []
    if not ranges and not negated:
        raise ValueError("no name has a slash")
    return f"[{'^/' if negated else ''}{''.join(ranges)}]"


def _source(text: str) -> tuple[str | None, bool | None]:
    """Returns the expression for a pattern and whether it takes or leaves out. Raises `ValueError` for what is none."""
    brackets: list[str] = []

    def put_aside(found: re.Match[str]) -> str:
        match found[0]:
            case "[":
                raise ValueError("a bracket is open")
            case escaped if found[2] is None:
                return escaped
        brackets.append(_bracket(found[1], found[2]))
        return chr(_PLACES[len(brackets) - 1])

    plain = _BRACKET.sub(put_aside, text)
    if "/" in text and "/" not in plain and plain[0] != "#":  # one in a bracket has git begin at the top as well
        plain = re.sub("^!?", r"\g<0>/", plain, count=1)
    plain = re.sub(r"/\*\*/ *$", "/**/*/", plain)  # the folders inside, and not all that is
    parsed = GitIgnoreSpecPattern(plain)
    if parsed.regex is None:
        return None, None
    places = f"[{chr(_PLACES[0])}-{chr(_PLACES[-1])}]"
    return re.sub(places, lambda found: brackets[ord(found[0]) - _PLACES[0]], parsed.regex.pattern), parsed.include


@contextmanager
def _quietly() -> Iterator[None]:
    """Keeps `re` from warning of sets like "[[]", which mean in a gitignore file what they mean to it today."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


@lru_cache(maxsize=1024)  # every watch has the same junk
def _line(origin: str, text: str) -> _Line | None:
    """Reads one pattern; None for blank lines and remarks."""
    try:
        if len(text) > _LONG:
            raise ValueError("no name is so long")
        with _quietly():
            source, takes = _source(text)
    except (ValueError, re.error):
        source = takes = None
    if source is not None and takes is not None:
        return _Line(origin, text, _regex(source), takes)
    if not text.strip() or text.startswith("#"):
        return None
    raise Failure(f"The pattern {text!r} in {origin} cannot be read; write it as in a .gitignore file.", Exit.USAGE)


def _lines(origin: str, patterns: Sequence[str]) -> list[_Line]:
    return [line for text in patterns if (line := _line(origin, text)) is not None]


def _lines_of_file(text: str) -> tuple[list[_Line], list[str]]:
    """Reads an ignore file; what is no pattern matches nothing, as with git, and is told."""
    lines, unread = [], []
    for number, one in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        pattern = one.removesuffix("\r")
        try:
            line = _line(IGNORE_FILE, pattern)
        except Failure:
            told = pattern if len(pattern) <= _TOLD else f"{pattern[:_TOLD]}…"
            unread.append(f"{IGNORE_FILE}, line {number}: {told!r} is no pattern, and matches nothing")
        else:
            lines += [line] if line is not None else []
    return lines, unread


class _Spec:
    """Patterns joined into one expression for names and one for paths: the last pattern that matches decides."""

    def __init__(self, lines: Sequence[_Line]) -> None:
        self._lines = lines
        numbered = list(enumerate(lines))[::-1]  # an alternation takes its first match, git the last
        self._names, self._name_of = self._join([(i, line) for i, line in numbered if line.of_names])
        self._paths, self._path_of = self._join([(i, line) for i, line in numbered if not line.of_names])

    @staticmethod
    def _join(numbered: list[tuple[int, _Line]]) -> tuple[re.Pattern[str] | None, list[int]]:
        if not numbered:
            return None, []
        parts = [line.regex.removeprefix(_ANYWHERE) if line.of_names else line.regex for _, line in numbered]
        with _quietly():
            joined = re.compile("|".join(f"({part})" for part in parts), re.DOTALL)
        assert joined.groups == len(parts)
        return joined, [-1, *(number for number, _ in numbered)]

    def decides(self, path: str) -> _Line | None:
        """Returns the pattern that decides on this very level; a folder's path ends with "/"."""
        if not self._lines:
            return None
        found = -1
        if self._names is not None:
            cut = path.rfind("/", 0, -1) + 1
            if (match := self._names.fullmatch(path, cut)) is not None:
                found = self._name_of[match.lastindex or 0]
        if self._paths is not None and (match := self._paths.fullmatch(path)) is not None:
            found = max(found, self._path_of[match.lastindex or 0])
        return self._lines[found] if found >= 0 else None


class _Verdict(NamedTuple):
    """What the patterns say of one folder."""

    refused: str  # the phrase that says why it is not entered; empty when it is
    included: bool  # files in it are, unless something says otherwise


class Rules:
    """Decides which files of a watch are taken and which folders are entered."""

    def __init__(
        self,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        ignore_file: str = "",
        junk: Sequence[str] = JUNK,
        foreign: bool = False,
        *,
        unread: str = "",
    ) -> None:
        """`foreign`: others may write the ignore file, so it takes nothing back. `unread`: why it cannot be read, if so."""
        self.texts = (tuple(include), tuple(exclude), ignore_file, tuple(junk), foreign)  # what makes these rules again
        self.fingerprint = xxhash.xxh3_64_intdigest(repr(self.texts if foreign else self.texts[:-1]).encode())
        self.of_file = bool(ignore_file)  # the ignore file says something
        self.unknown = bool(unread)  # nothing is taken until the ignore file is read
        own, self.unread = _lines_of_file(ignore_file)
        self.unread += [unread] if unread else []
        self._include = _Spec(_lines("include", include))
        self._exclude = _Spec([*_lines("junk pattern", junk), *_lines("exclude", exclude), *([] if foreign else own)])
        self._foreign = _Spec(own if foreign else [])
        self._root = _Verdict("", not include)
        self._folders: dict[str, _Verdict] = {}

    def takes(self, path: str) -> bool:
        """True when the file at this path is wanted."""
        return not self._refusal(path)

    def enters(self, folder: str) -> bool:
        """False when nothing inside the folder can be wanted."""
        return not self._folder(folder).refused

    def why(self, path: str) -> str:
        """Says which rule decided on a file, as a phrase for a person."""
        return self._refusal(path) or "taken"

    def _refusal(self, path: str) -> str:
        if path == IGNORE_FILE or path.startswith(PRIVATE, path.rfind("/") + 1):
            return "dumbwaiter's own"
        folder = self._folder(path[: max(path.rfind("/"), 0)])
        if folder.refused:
            return folder.refused
        line = self._excluded(path)
        if line is not None:
            return f"{line.origin} {line.pattern!r}"
        line = self._include.decides(path)
        included = folder.included if line is None else line.takes
        return "" if included else "not in include"

    def _folder(self, folder: str) -> _Verdict:
        """Judges a folder by its parents first, without recursion: paths may be deeper than the stack."""
        unknown = []
        verdict = self._folders.get(folder) if folder else self._root
        while verdict is None:
            unknown.append(folder)
            folder = folder[: max(folder.rfind("/"), 0)]
            verdict = self._folders.get(folder) if folder else self._root
        if len(self._folders) >= _REMEMBERED:
            self._folders.clear()
        for below in reversed(unknown):
            verdict = verdict if verdict.refused else self._level(below, verdict)
            self._folders[below] = verdict
        return verdict

    def _excluded(self, path: str) -> _Line | None:
        """Returns the pattern that leaves out this very level."""
        decided = (self._exclude.decides(path), self._foreign.decides(path))
        return next((line for line in decided if line is not None and line.takes), None)

    def _level(self, folder: str, above: _Verdict) -> _Verdict:
        line = self._excluded(folder + "/")
        if line is not None:
            return _Verdict(f"{line.origin} {line.pattern!r} on folder {folder!r}", included=False)
        line = self._include.decides(folder + "/")
        return above if line is None else _Verdict("", line.takes)


def rules(folder: str, include: Sequence[str], exclude: Sequence[str]) -> Rules:
    """Returns what a watch takes, its folder's own ignore file included: nothing while that cannot be read."""
    try:
        content, foreign = _read(folder)
        if len(content) > _LONGEST or content.count(b"\n") > _MOST:
            return unknown(include, exclude, f"it has more than {_MOST} lines, or {_LONGEST} bytes")
        return Rules(include, exclude, content.decode("utf-8", "surrogateescape"), foreign=foreign)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return Rules(include, exclude)
    except OSError as error:
        return unknown(include, exclude, (error.strerror or "").lower())


def _nobody() -> set[int]:
    """Returns the number that all users have who are none in this namespace: of two, nobody knows whether they are one."""
    try:
        with open("/proc/sys/kernel/overflowuid", encoding="ascii") as file:
            return {int(file.read())} - {os.geteuid()}
    except (OSError, ValueError):
        return set()


def _read(folder: str) -> tuple[bytes, bool]:
    """Reads a folder's ignore file; returns also whether others than root, this user and the folder's owner may write it.

    Raises OSError, also for somebody else's link: it may lead to what only this user may read.
    """
    path, trusted = os.path.join(folder, IGNORE_FILE), {0, os.geteuid(), os.stat(folder).st_uid} - _nobody()
    there = os.lstat(path)
    is_link = stat.S_ISLNK(there.st_mode)
    if is_link and there.st_uid not in trusted:
        raise PermissionError(errno.EPERM, "another user's link")
    # Nobody waits for a pipe's other end, or reads a device to its end.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags if is_link else flags | os.O_NOFOLLOW)
    try:
        status = os.fstat(descriptor)
        foreign = status.st_uid not in trusted or others_may_write(status)
        with open(descriptor, "rb", closefd=False) as file:
            return (file.read(_LONGEST + 1) if stat.S_ISREG(status.st_mode) else b""), foreign
    finally:
        os.close(descriptor)


def unknown(include: Sequence[str], exclude: Sequence[str], why: str) -> Rules:
    """Returns what a watch takes whose own ignore file cannot be read: nothing."""
    return Rules(include, exclude, "*", unread=f"{IGNORE_FILE} cannot be read ({why}): nothing is taken until it can")
