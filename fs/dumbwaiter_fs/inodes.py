"""What stands in the three trees, and the numbers by which the kernel knows them. Pure.

A file's number is computed from its row, so that no table is needed to find it again, and from the time at which the
row got this version, so that another version has another number. What has no row, folders and made-up files, has a
number hashed from its path. All numbers are the same in every mount.
"""

import hashlib
from typing import NamedTuple

from dumbwaiter.model import Entry
from dumbwaiter.naming import join, key_path
from dumbwaiter.store.tables import IS_CURRENT, IS_SHOWN

ROOT = 1  # the kernel's number for it
NAMED = 1 << 62  # this bit is set in a number that is made from a path
_MOMENT, _ROW = 24, 36  # bits of a file's number


class Tree(NamedTuple):
    """One of the three trees: where its names stand. `code` tells its numbers from the other trees'."""

    code: int
    name: str
    table: str
    parent: str
    leaf: str
    shown: str
    since: str


TREES = {
    tree.name: tree
    for tree in (
        Tree(1, "keys", "entries", "key_parent", "key_name", "", "stored_at"),
        Tree(2, "files", "entries", "parent", "name", f"{IS_CURRENT} AND ", "stored_at"),
        Tree(3, "outbox", "jobs", "parent", "name", f"{IS_SHOWN} AND ", "created_at"),
    )
}
BY_CODE = {tree.code: tree for tree in TREES.values()}


class FileRow(NamedTuple):
    """What a row says of a file."""

    number: int
    size: int
    mtime_ns: int
    ctime_ms: int


class Inode(NamedTuple):
    """A file or folder. `number` is what the kernel knows it by: of the row for a file, of the path for all else."""

    number: int
    folder: bool
    size: int = 0
    mtime_ns: int = 0
    ctime_ms: int = 0  # when it came to the catalog, or became what it is
    tree: Tree | None = None  # of a file
    text: bytes | None = None  # of a file that is made up as it is read

    @property
    def waiting(self) -> bool:
        return self.tree is not None and self.tree.table == "jobs"


def path_of(tree: Tree, entry: Entry) -> bytes:
    """Returns the path of an entry in one of its trees."""
    parts = (entry.provider, key_path(entry.key)) if tree.name == "keys" else (entry.watch, entry.path)
    return join(tree.name, *parts).encode("utf-8", "surrogateescape")


def number_of(path: bytes) -> int:
    """Returns the number of a folder or a made-up file."""
    return NAMED | int.from_bytes(hashlib.blake2b(path, digest_size=8).digest(), "big") >> 2 if path else ROOT


def number_sql(tree: Tree) -> str:
    """Returns the expression for a file's number: milliseconds, row, tree."""
    moment = f"(CAST({tree.since} * 1000 AS BIGINT) & {(1 << _MOMENT) - 1}) << {_ROW + 2}"
    return f"(({moment}) | (id << 2) | {tree.code})"


def ctime_sql(tree: Tree, server: bool) -> str:
    """Returns the expression for when a file came to the catalog, in milliseconds, as `ctime_ms` has it."""
    moment = f"{tree.since} * 1000"
    return f"CAST({f'floor({moment})' if server else moment} AS BIGINT)"  # a server's would round


def ctime_ms(at: float) -> int:
    return int(at * 1000)


def row_of(number: int) -> int:
    return number >> 2 & (1 << _ROW) - 1
