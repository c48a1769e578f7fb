"""The configuration's file: TOML in, checked structs out, and one clear sentence for whatever is wrong with it.

Everything is checked before anything starts. A problem names file, line and key, says what was found and what is
allowed, and the nearest known key.
"""

import os
import re
import stat
import tomllib
from collections.abc import Iterator
from typing import Any

import msgspec

from dumbwaiter.config import Config, Watch
from dumbwaiter.config.checks import check_journal, checked
from dumbwaiter.config.options import Provider
from dumbwaiter.config.reader import Reader
from dumbwaiter.config.text import ConfigText, key_beside
from dumbwaiter.errors import Exit, Failure, exit_at
from dumbwaiter.files.writers import others_may_write
from dumbwaiter.naming import nearest, shown

LARGEST = 1 << 20  # bytes of a file that is read
_QUOTED = r"'([^']*)'"


def load(path: str) -> Config:
    """Reads and checks a file. Raises `Failure` with the first thing that is wrong: exit code 2, 5 where a disk fails."""
    try:
        # Without O_NONBLOCK a pipe that nobody writes to would be waited for.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise Failure(f"{path} is no regular file", Exit.USAGE)
            content = file.read(LARGEST + 1)
            if len(content) > LARGEST:
                raise Failure(f"{path} has more than {LARGEST} bytes, which is no configuration", Exit.USAGE)
            text = content.decode("utf-8-sig")  # editors on Windows begin with a mark
    except FileNotFoundError:
        raise Failure(
            f"there is no configuration at {path}: `dumbwaiter init` writes a first one", Exit.USAGE
        ) from None
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}", exit_at(error)) from None
    except UnicodeDecodeError:
        raise Failure(f"{path} is no UTF-8 text", Exit.USAGE) from None
    return parse(text, path, private=not stat.S_IMODE(mode) & 0o077)


def parse(text: str, path: str, *, private: bool = True) -> Config:
    """Checks the text of a configuration. `private`: nobody but the owner can read the file."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # It writes a table's name as Python would.
        said = re.sub(r"\('.*?\)", lambda name: f"[{'.'.join(re.findall(_QUOTED, name[0]))}]", str(error))
        raise Failure(f"{path}: {said}{key_beside(text, said)}", Exit.USAGE) from None
    except ValueError:  # of Python's own: TOML sets no limit
        raise Failure(f"{path}: a number has more digits than any of a configuration", Exit.USAGE) from None
    except RecursionError:
        raise Failure(f"{path}: arrays or tables lie too deep in one another", Exit.USAGE) from None
    text_of = ConfigText(text, path)
    read = Reader(text_of, private)
    known = {f.name: f.type for f in msgspec.structs.fields(Config)}
    values: dict[str, Any] = {}
    for name, value in raw.items():
        if name not in known:
            raise text_of.failure([name], f'unknown key "{shown(name)}"{nearest(name, known)}')
        one = {"provider": Provider, "watch": Watch}.get(name)
        values[name] = read.tables(name, value, one) if one else read.value([name], value, known[name])
    config = Config(**values)
    if config.journal is not None:
        check_journal(config.journal, text_of, private)
    return checked(config, text_of)


def exposed(path: str) -> Iterator[str]:
    """Yields a sentence for whatever lets somebody else write a file that can have commands run: it, and its folder."""
    real = os.path.realpath(path)
    for one in dict.fromkeys((real, os.path.dirname(real), os.path.dirname(os.path.abspath(path)))):
        status = os.stat(one)
        if status.st_uid not in {0, os.geteuid()}:
            yield f"{one} belongs to somebody else, who could have commands run as you: name another one with --config"
        elif others_may_write(status) and not _is_sticky(status):
            yield f"others can write {one}, and so have commands run as you: chmod go-w {one}"


def _is_sticky(status: os.stat_result) -> bool:
    """True of a folder like /tmp: what is there can be replaced by its owner alone."""
    return bool(stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX)


def location(path: str, *keys: str) -> str:
    """Returns file, line and key of what a configuration says there, for what only this machine can tell of it."""
    with open(path, encoding="utf-8-sig") as file:
        return ConfigText(file.read(), path).location(keys)
