"""What a person means who names a file to be uploaded now: which version of it, of which watch, to which provider."""

import os
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import groupby

from dumbwaiter.config import RESERVED, Config
from dumbwaiter.errors import Exit, Failure, exit_at
from dumbwaiter.files.roots import disk_of
from dumbwaiter.jobs.threads import Threads
from dumbwaiter.model import stamp_of_regular
from dumbwaiter.naming import shown
from dumbwaiter.store.arrivals import Candidate

LOOKS = 500  # files at a time


async def looked_at(paths: Sequence[str], look: Callable[[str], Candidate], threads: Threads) -> list[Candidate]:
    """Looks at files, some of a disk at a time. Raises `Failure`, for a disk that does not answer too."""
    found: list[Candidate] = []
    known = cache(disk_of)
    for disk, group in groupby(paths, lambda path: known(os.path.dirname(path))):
        names = list(group)
        while some := names[:LOOKS]:
            del names[:LOOKS]
            try:
                found += await threads.look(disk, partial(list, map(look, some)), lambda _found: None)
            except TimeoutError:
                raise Failure(f"{shown(some[0])}: its folder does not answer", Exit.TEMPORARY) from None
    return found


def candidate(config: Config, path: str, provider: str | None, watch: str | None) -> Candidate:
    """Looks at a file, which may block. Raises `Failure` when it is none, or nobody knows where it is to go."""
    if not path.startswith("/") or path != os.path.normpath(path) or path.startswith("//"):
        raise Failure(f'{shown(path)} is not the plain path of a file: from "/", without "." or ".."', Exit.USAGE)
    try:
        stamp = stamp_of_regular(os.stat(path, follow_symlinks=False))
    except OSError as error:
        raise Failure(f"{shown(path)}: {error.strerror}", exit_at(error)) from None
    except ValueError:  # a zero byte
        raise Failure(f"{shown(path)} is no path", Exit.USAGE) from None
    if os.path.islink(path):
        raise Failure(f"{shown(path)} is a link: name the file that it leads to", Exit.USAGE)
    if stamp is None:
        raise Failure(f"{shown(path)} is no regular file", Exit.USAGE)
    if not os.access(path, os.R_OK, effective_ids=True):
        raise Failure(f"{shown(path)} may not be read by the user who uploads: give that user the right to", Exit.USAGE)
    return Candidate(*_destination(config, path, provider, watch), stamp)


def _destination(config: Config, path: str, provider: str | None, watch: str | None) -> tuple[str, str, str]:
    """Returns watch, path below it, and provider: as told, else by the watch the file lies in, else the only one."""
    for name, one in config.watch.items():
        inside = path.startswith(f"{one.path}/")
        if inside and (watch == name or (watch is None and provider in {None, one.provider})):
            return name, path[len(one.path) + 1 :], one.provider
    if watch is not None:
        if watch not in config.watch:
            raise Failure(f'there is no watch "{watch}"', Exit.USAGE)
        provider = config.watch[watch].provider
    if provider is None:
        if len(config.provider) != 1:
            raise Failure(f"say which provider: --provider NAME, of {', '.join(config.provider)}", Exit.USAGE)
        provider = next(iter(config.provider))
    if provider not in config.provider:
        raise Failure(f'there is no provider "{provider}"; known: {", ".join(config.provider)}', Exit.USAGE)
    return RESERVED, path.lstrip("/"), provider
