"""What is told to the kernel unasked: which of the names, attributes and bytes that it keeps are old.

Never by a thread that answers the kernel: it may hold what it waits for.
"""

import errno
import os
from collections.abc import Callable
from contextlib import suppress

from dumbwaiter import log
from dumbwaiter_fs import wire
from dumbwaiter_fs.inodes import ROOT, TREES, number_of
from dumbwaiter_fs.known import Known
from dumbwaiter_fs.operations import Operations
from dumbwaiter_fs.packing import LONG, SHORT, Freshness
from dumbwaiter_fs.trees import shown_as

_log = log.get(__name__)


class Invalidation:
    """A `news.Listener` that has the kernel forget. `mounted_on` finds the folder of the mount, where there is one."""

    def __init__(
        self,
        descriptor: int,
        known: Known,
        freshness: Freshness,
        operations: Operations,
        mounted_on: Callable[[], str | None],
    ) -> None:
        self._descriptor = descriptor
        self._known = known
        self._freshness = freshness
        self._operations = operations
        self._mounted_on = mounted_on

    def trust(self, *, told: bool) -> None:
        """Lets the kernel keep what it knows for long, as all changes are `told`, or for a short time."""
        self._freshness.valid = LONG if told else SHORT

    def changing(self) -> None:
        """What has been asked of the catalog until now may be old; the kernel will not keep it."""
        self._freshness.changes += 1

    def invalidate(self, path: bytes) -> None:
        """Another version stands at a path now, or a folder where nothing or a file was."""
        above = ROOT
        parts = path.split(b"/")
        for depth, name in enumerate(parts, 1):
            if above not in self._known:
                return
            number = number_of(b"/".join(parts[:depth]))
            self._notify(wire.notify_inval_inode(above))  # its times tell that something came here, or below
            if depth == len(parts):
                for shown in shown_as(name):
                    self._notify(wire.notify_inval_entry(above, shown))
            elif number not in self._known:
                self._notify(wire.notify_inval_entry(above, name))
            above = number

    def invalidate_all(self) -> None:
        """Nothing is certain any more. Without its name a folder goes, and what is below it, but for open files."""
        for name in TREES:
            self._notify(wire.notify_inval_entry(ROOT, name.encode()))
        if (folder := self._mounted_on()) is not None:
            for name in TREES:  # until somebody looks it up, who works in it is told that his folder was deleted
                with suppress(OSError):
                    os.stat(os.path.join(folder, name))
        self.invalidate_open()

    def invalidate_open(self) -> None:
        """What somebody has open may stand under its name no more; of all else the kernel hears when it is asked for."""
        for path in self._operations.outdated():
            self.invalidate(path)

    def _notify(self, message: bytes) -> None:
        try:
            os.write(self._descriptor, message)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.EBADF, errno.ENODEV, errno.ENOTCONN}:
                _log.warning("the kernel does not take what it is told", errno=errno.errorcode.get(error.errno or 0))
