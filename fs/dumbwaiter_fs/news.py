"""How the mount learns that the catalog has changed: the database's own event, then one question for what is new.

For SQLite the event is a write to its log (inotify), for PostgreSQL a NOTIFY that comes with the commit. Where neither
can be had, nobody is told, what the kernel keeps it keeps for a second, and hearing is tried again.
"""

import os
import select
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import URL

from dumbwaiter import log
from dumbwaiter.store.database import PATIENT
from dumbwaiter.store.tables import CHANNEL
from dumbwaiter_fs.index import MANY, OVERLAP, Change, Position
from dumbwaiter_fs.trees import CatalogState, Trees

if TYPE_CHECKING:
    from psycopg import Connection

# A log is written before its commit can be seen, and reaching the disk comes in between, which a busy one takes long for:
# the event is looked into again after these milliseconds, one after the other. A minute after the last, nothing is.
AGAIN = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, *[1000] * 59)
RETRY = 5.0  # seconds until hearing is tried again

_log = log.get(__name__)


class Listener(Protocol):
    """Who is told, in this module's thread."""

    def trust(self, *, told: bool) -> None:
        """Whether all changes are told from now on."""

    def changing(self) -> None:
        """The catalog has changed; which paths follows."""

    def invalidate(self, path: bytes) -> None:
        """Another file stands at a path, or none."""

    def invalidate_all(self) -> None:
        """Any path may have changed."""

    def invalidate_open(self) -> None:
        """A file that somebody has open may have lost its name; called after the paths of one look."""


class News:
    """A thread that waits for changes, from `start` to `close`."""

    def __init__(self, url: URL, trees: Trees, listener: Listener) -> None:
        self._url = url
        self._trees = trees
        self._listener = listener
        self._position = Position(0, 0.0)
        self._seen: set[tuple[int, float]] = set()
        self._walks: list[object] = []
        self._state: CatalogState | None = None
        self._deaf = False
        self._end, self._closing = os.pipe()
        run = self._hear_file if url.get_backend_name() == "sqlite" else self._hear_server
        self._thread = threading.Thread(target=self._run, args=(run,), name="news", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        os.write(self._closing, b".")
        self._thread.join()
        os.close(self._end)
        os.close(self._closing)

    def _run(self, hear: Callable[[], None]) -> None:
        """Hears until the mount ends; begins anew after whatever goes wrong."""
        while True:
            try:
                return hear()
            except Exception as error:  # noqa: BLE001 - without news the mount still answers rightly, a second later
                if not self._deaf:
                    _log.warning("changes are not heard", kind=type(error).__name__)
                    self._listener.trust(told=False)
                    self._listener.changing()
                    self._listener.invalidate_all()
                self._deaf = True
            if _ready(self._end, milliseconds=RETRY * 1000):
                return None

    def _begin(self) -> None:
        """From here on everything is told."""
        self._position, self._walks = self._trees.newest(), self._trees.walks()
        self._seen.clear()
        self._deaf = False
        self._listener.trust(told=True)

    def _look(self) -> None:
        """Tells of what came since the last look."""
        if (walks := self._trees.walks()) != self._walks:
            self._walks = walks
            self._listener.changing()
            self._listener.invalidate_all()
        found = self._trees.since(self._position)
        changes = [change for change in found if (change.row, change.at) not in self._seen]
        if not changes:
            return
        self._listener.changing()
        if len(found) >= MANY:
            self._listener.invalidate_all()
        else:
            for change in changes:
                self._tell(change)
            self._listener.invalidate_open()
        self._position = Position(
            max(self._position.row, *(one.row for one in found)), max(self._position.at, *(one.at for one in found))
        )
        # What the next question will return once more.
        self._seen = {(one.row, one.at) for one in found if one.at >= self._position.at - OVERLAP}

    def _tell(self, change: Change) -> None:
        for tree, parent, name in (
            (b"keys", change.key_parent, change.key_name),
            (b"files", change.parent, change.name),
        ):
            self._listener.invalidate(b"/".join(part for part in (tree, bytes(parent), bytes(name)) if part))

    # SQLite

    def _hear_file(self) -> None:
        from watchdog.observers.inotify_c import InotifyConstants as Constants
        from watchdog.observers.inotify_c import inotify_add_watch, inotify_init

        folder = os.fsencode(os.path.dirname(self._url.database or "") or ".")
        wanted = Constants.IN_MODIFY | Constants.IN_CREATE | Constants.IN_MOVED_TO
        wanted |= Constants.IN_DELETE | Constants.IN_MOVE_SELF | Constants.IN_DELETE_SELF
        events = inotify_init()
        try:
            watched = inotify_add_watch(events, folder, wanted) if events >= 0 else -1
            if watched < 0:
                raise OSError("no inotify, or no folder")
            self._state = self._trees.state()
            self._begin()
            # Asked for once more, it has the same number as long as it is the same folder.
            self._hear(events, lambda: inotify_add_watch(events, folder, wanted) == watched)
        finally:
            if events >= 0:
                os.close(events)

    def _hear(self, events: int, same_folder: Callable[[], bool]) -> None:
        again = len(AGAIN)  # how many looks have been taken since the last event
        while True:
            ready = _ready(events, self._end, milliseconds=AGAIN[again] if again < len(AGAIN) else None)
            if self._end in ready:
                return
            if events in ready:
                os.read(events, 1 << 16)
                again = 0
            else:
                again += 1
            if not same_folder():
                raise FileNotFoundError("the folder is another one, or gone")
            if (state := self._trees.state()) != self._state:
                if self._state is not None and state.journal != self._state.journal:  # it is another database now
                    self._seen.clear()
                    self._position = self._trees.newest()
                    self._listener.changing()
                    self._listener.invalidate_all()
                self._state = state
                self._look()

    # PostgreSQL

    def _hear_server(self) -> None:
        import psycopg

        limits = {name: str(limit) for name, limit in PATIENT.items()}
        address = self._url.set(drivername="postgresql").update_query_dict(limits)
        with psycopg.connect(address.render_as_string(hide_password=False), autocommit=True) as connection:
            connection.execute(f"LISTEN {CHANNEL}")
            self._begin()
            self._listen(connection)

    def _listen(self, connection: "Connection[tuple[object, ...]]") -> None:
        while True:
            if self._end in _ready(connection.fileno(), self._end):
                return
            for _ in connection.notifies(timeout=0):
                pass
            self._look()


def _ready(*descriptors: int, milliseconds: float | None = None) -> set[int]:
    """Waits for input on any of these, whatever their numbers: `select` ends at 1,023."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poll.poll(milliseconds)}
