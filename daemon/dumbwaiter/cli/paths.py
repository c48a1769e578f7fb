"""What a person means by the path of an uploaded file: one rule for every command that takes one.

In this order: a path inside a mount; a local file that is there, in a watched folder; a path that begins with keys/,
files/ or outbox/; one that begins with a watch's name; else a local path, whether or not a file is there today. A
path as `ls` and `status` print it, with escapes for what a terminal cannot show, is understood too.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING

from dumbwaiter.cli.session import Session
from dumbwaiter.errors import Failure
from dumbwaiter.model import Entry
from dumbwaiter.naming import TREES, join, shown, unshown

if TYPE_CHECKING:
    from dumbwaiter.catalog import Catalog, Waiting
    from dumbwaiter.config import Config


def tree_path(session: Session, path: str) -> str:
    """Returns the path in the catalog's trees that a person means."""
    from dumbwaiter.config import RESERVED

    config, absolute = session.config, os.path.abspath(path)
    for folder in _mounts(config):
        if _inside(absolute, folder):
            return absolute[len(folder) + 1 :] or "files"
    local = join("files", *watch_of(config, path))
    if os.path.lexists(path) and not local.startswith(f"files/{RESERVED}/"):
        return local
    if not path.startswith(("/", "./", "../")):
        plain = os.path.normpath(path)
        first = plain.partition("/")[0]
        if first in TREES:
            return plain
        if first in {*config.watch, RESERVED} or session.catalog.find(f"files/{plain}") is not None:
            return f"files/{plain}"
    return local


def spellings(path: str) -> Iterable[str]:
    """Returns what was typed, and what it stands for where it was copied from what is shown."""
    return dict.fromkeys((path, unshown(path)))


def file_at(session: Session, path: str) -> "Entry | Waiting | None":
    """Returns the file of the catalog's trees that a person means, None when there is none."""
    nodes = [session.catalog.find(tree_path(session, text)) for text in spellings(path)]
    return next((node.file for node in nodes if node is not None and node.file is not None), None)


def entry_at(session: Session, path: str) -> Entry | None:
    """Returns the catalogued file that a person means, None when there is none."""
    file = file_at(session, path)
    return file if isinstance(file, Entry) else None


def entry_of(session: Session, path: str) -> Entry:
    """Returns the catalogued file that a person means. Raises `Failure`."""
    entry = entry_at(session, path)
    if entry is None:
        raise folder_at(session, path) or Failure(
            f"{shown(path)} is not at any provider: dumbwaiter status {shown(path)}"
        )
    return entry


def folder_at(session: Session, path: str) -> Failure | None:
    """Returns what to say where a person names a folder of the catalog instead of a file."""
    if not session.has_journal:
        return None
    known = (session.catalog.find(tree_path(session, text)) for text in spellings(path))
    if not any(node is not None and node.file is None for node in known):
        return None
    return Failure(f"{shown(path)} is a folder: dumbwaiter ls {shown(path)} lists what is in it")


def linked(session: Session, path: str) -> Entry:
    """Returns what gives a link to the file that a person means, if anything does: it may be at several providers.

    Raises `Failure` when it is at none.
    """
    entry = entry_of(session, path)
    if entry.url is not None or tree_path(session, path).startswith("keys/"):
        return entry
    return session.catalog.linked(entry) or entry


def files_below(session: Session, path: str | None) -> "Iterator[tuple[str, Entry | Waiting]]":
    """Yields what is at or below the path that a person means, with its path; without one, all that was uploaded.

    Raises `Failure` when there is nothing, but for a whole tree, which may be empty.
    """
    tree = "files" if path is None else path.rstrip("/")
    if path is None or (tree in TREES and not os.path.lexists(path)):
        if session.has_journal:
            yield from _below(session.catalog, tree)
        return
    for text in spellings(path):
        found = _below(session.catalog, tree_path(session, text))
        if (first := next(found, None)) is not None:
            yield first
            yield from found
            return
    raise Failure(f"nothing is known under {shown(path)}")


def _below(catalog: "Catalog", top: str) -> "Iterator[tuple[str, Entry | Waiting]]":
    node = catalog.find(top)
    if node is not None and node.file is not None:
        yield top, node.file
        return
    below = [(top, iter(catalog.children(top)))]  # no recursion: a folder may lie deeper than Python's goes
    while below:
        folder, children = below[-1]
        child = next(children, None)
        if child is None:
            below.pop()
            continue
        inner = join(folder, child.name)
        if child.file is None:
            below.append((inner, iter(catalog.children(inner))))
        else:
            yield inner, child.file


def watch_of(config: "Config", path: str) -> tuple[str, str]:
    """Returns watch and inner path of a local file; "put" for one outside of all watches."""
    from dumbwaiter.config import RESERVED

    absolute = placed(config, path)
    for name, watch in config.watch.items():
        if _inside(absolute, watch.path):
            return name, absolute[len(watch.path) + 1 :]
    return RESERVED, absolute.lstrip("/")


def placed(config: "Config", path: str) -> str:
    """Returns the absolute path of a local file; in a watched folder as the watch has it, whatever links lead there."""
    absolute = os.path.abspath(path)
    real = os.path.join(_resolved(os.path.dirname(absolute)), os.path.basename(absolute))
    folders = [watch.path for watch in config.watch.values()]
    for candidate in (absolute, real):
        if any(_inside(candidate, folder) for folder in folders):
            return candidate
    for folder in folders:
        if _inside(real, behind := _resolved(folder)):
            return folder + real[len(behind) :]
    return absolute


@cache
def _resolved(folder: str) -> str:
    from dumbwaiter.files.roots import resolved

    return resolved(folder)


def out_of_reach(root: str, inner: str) -> str:
    """Returns why what lies behind a link, or on another file system, in a watched folder is left alone; else nothing."""
    folder, device = root, os.stat(root).st_dev
    for name in inner.split("/")[:-1]:
        folder = os.path.join(folder, name)
        status = os.lstat(folder)
        if stat.S_ISLNK(status.st_mode):
            return f"{shown(folder)} is a link, and links are not followed"
        if status.st_dev != device:
            return (
                f"{shown(folder)} is another file system and left out: mount or bind it outside of the watched folder, and "
                "give that place a watch"
            )
    return ""


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def _mounts(config: "Config") -> list[str]:
    """Returns where the catalog may be mounted: as configured, and wherever the kernel has such a mount."""
    from dumbwaiter.files.roots import OURS, mounts

    found = [config.mount.path] if config.mount.path else []
    return found + [place for place, kind in mounts() if kind == OURS]
