"""The mount's process: options, signals, life.

    dumbwaiter-mount [--config F] [--state D] [--cache D] [--runtime D] [-v] [-q] [--background] [DIR]
    dumbwaiter-mount [--config F] --unmount [DIR]

The session runs in a thread of its own while the main thread waits for a signal or for the end of the mount, so a signal
is heard whatever a reader is waiting for. Every way out takes the mount off the folder.
"""

import argparse
import gc
import importlib
import os
import signal
import stat
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from dumbwaiter import log
from dumbwaiter.cache_hits import Hits
from dumbwaiter.config import Config
from dumbwaiter.config.file import load
from dumbwaiter.errors import Exit, Failure
from dumbwaiter.kernel_limits import raise_files
from dumbwaiter.naming import shown
from dumbwaiter.places import Places, places
from dumbwaiter.streams import failed, have_streams, have_utf8
from dumbwaiter_fs import mount_point
from dumbwaiter_fs.events import Events

if TYPE_CHECKING:
    from sqlalchemy import URL

    from dumbwaiter_fs.content import Contents
    from dumbwaiter_fs.operations import Operations
    from dumbwaiter_fs.trees import Trees

LAST = 5.0  # seconds that open files have to be closed after a signal
START = 20.0  # seconds until the kernel must have greeted the mount

_KERNEL = {"max_read": 1 << 20}
# What libfuse takes for itself; the fast session tells the kernel on its own.
_LIBFUSE = {
    "use_ino": True,
    "attr_timeout": 1,
    "entry_timeout": 1,
    "max_readahead": 1 << 20,
    "max_background": 64,  # else twelve waiting reads would hold up everybody's read-ahead
}

_log = log.get(__name__)


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0 after an orderly end, 1 failed, 2 usage or configuration, 5 in use."""
    have_utf8()
    have_streams()
    wishes = _parser().parse_args(argv)
    try:
        if wishes.unmount is not None:
            mount_point.unmount(mount_point.resolved(wishes.unmount or _configured(wishes)))
            return Exit.DONE
        return _mount(wishes)
    except Failure as failure:
        failed(str(failure))
        return failure.code
    except OSError as error:  # the folder that a person stands in is gone, say
        name = f"{shown(os.fsdecode(error.filename))}: " if isinstance(error.filename, str | bytes) else ""
        failed(f"{name}{error.strerror or error}")
        return Exit.FAILED
    except KeyboardInterrupt:
        return Exit.FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dumbwaiter-mount",
        description="Shows the catalog as read-only folders, until it is unmounted or ended by a signal.",
        epilog="What every call on the mount does, and every errno, is written in fs/SEMANTICS.md.",
    )
    parser.add_argument("folder", metavar="DIR", nargs="?", help="an empty folder; default: [mount] path")
    parser.add_argument("--config", metavar="FILE", help="configuration")
    parser.add_argument("--state", metavar="DIR", help="folder of the journal")
    parser.add_argument("--cache", metavar="DIR", help="folder of the cache")
    parser.add_argument("--runtime", metavar="DIR", help="folder of the control socket")
    parser.add_argument("-v", "--verbose", action="store_true", help="log more")
    parser.add_argument("-q", "--quiet", action="store_true", help="log less")
    parser.add_argument("--background", action="store_true", help="return as soon as the mount answers")
    parser.add_argument("--check", action="store_true", help="only say whether it could be mounted")
    parser.add_argument("--unmount", metavar="DIR", nargs="?", const="", help="take the mount off DIR and end")
    return parser


def _configured(wishes: argparse.Namespace) -> str:
    where = places(wishes.config, wishes.state, wishes.cache, wishes.runtime)
    if path := load(where.config).mount.path:
        return path
    raise Failure(f"no folder for the mount: name one, or write [mount] path in {where.config}", Exit.USAGE)


def _mount(wishes: argparse.Namespace) -> int:
    where = places(wishes.config, wishes.state, wishes.cache, wishes.runtime)
    settings = load(where.config)
    folder = mount_point.resolved(wishes.folder or _configured(wishes))
    mount_point.check_apart(
        folder,
        {name: watch.path for name, watch in settings.watch.items()},
        {"state": where.state, "cache": where.cache, "runtime": where.runtime},
    )
    if settings.mount.cache_size:
        from dumbwaiter_fs.cache import check_owner

        check_owner(where.cache)
    _check_fuse(settings)
    mount_point.prepare(folder, look_only=wishes.check)
    if wishes.check:
        return Exit.DONE
    ready = _into_background() if wishes.background else None
    raise_files()
    level = "debug" if wishes.verbose else "warning" if wishes.quiet else settings.log.level
    log.configure(level, settings.log.format, patient=False)
    return _Life(settings, where, folder, ready).run()


def _check_fuse(settings: Config) -> None:
    """Loads the binding. Raises `Failure` with the package to install."""
    if not os.path.exists("/dev/fuse"):
        raise Failure("there is no /dev/fuse here: modprobe fuse, or give the container that device")
    try:
        importlib.import_module("dumbwaiter_fs.binding")
    except OSError:
        raise Failure(
            "the mount needs libfuse: install the package libfuse2 or libfuse3-3 (Fedora, Arch: fuse or fuse3)"
        ) from None
    if os.geteuid() == 0:
        return
    if mount_point.fusermount() is None:
        raise mount_point.no_fusermount()
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):  # fusermount opens it with the user's own rights
        raise Failure("/dev/fuse may not be opened by this user: an administrator must allow it (mode 0666 is usual)")
    if settings.mount.allow_other and not _others_allowed():
        raise Failure("[mount] allow_other needs the line user_allow_other in /etc/fuse.conf")


def _others_allowed() -> bool:
    try:
        with open("/etc/fuse.conf", encoding="utf-8", errors="replace") as lines:
            return any(line.partition("#")[0].strip() == "user_allow_other" for line in lines)
    except OSError:
        return False


def _into_background() -> int:
    """Forks. Returns to the child, with a pipe to write to when the mount answers; the parent waits for that and exits."""
    inlet, outlet = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(inlet)
        os.setsid()
        return outlet
    os.close(outlet)
    try:
        if os.read(inlet, 1):
            sys.exit(Exit.DONE)
        _, status = os.waitpid(child, 0)
        # One that was told to end before it answered has ended well, and is not mounted.
        sys.exit((os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 0) or Exit.FAILED)
    finally:
        os.close(inlet)


def _detach(outlet: int) -> None:
    """Tells the parent that the mount answers, and lets go of its terminal; a log file stays."""
    os.write(outlet, b"+")
    os.close(outlet)
    log.flush()
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        if number < 2 or not stat.S_ISREG(os.fstat(number).st_mode):
            os.dup2(null, number)
    os.close(null)


class _Life:
    """One mount from start to end."""

    def __init__(self, settings: Config, where: Places, folder: str, ready: int | None) -> None:
        self._settings = settings
        self._where = where
        self._folder = folder
        self._mount: mount_point.Identity | None = None
        self._ready = ready
        # First of all: libfuse sets handlers of its own for what has none, and then a signal is not heard in Python.
        self._events = Events((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        self._error: BaseException | None = None

    def run(self) -> int:
        """Mounts, and returns the exit code once the mount is taken off. Raises `Failure` when it cannot be mounted."""
        from sdnotify import SystemdNotifier

        from dumbwaiter.store.database import journal_url
        from dumbwaiter_fs.operations import Operations
        from dumbwaiter_fs.trees import Trees

        systemd = SystemdNotifier()
        url = journal_url(self._where.state, self._settings.journal)
        trees = Trees(url)
        contents = self._contents()
        operations = Operations(trees, contents, lambda: self._events.put("mounted"))
        thread = threading.Thread(target=self._serve, args=(operations, trees, url), name="fuse", daemon=True)
        thread.start()
        try:
            event = self._events.next(START)
            if event == "mounted":
                self._mount = mount_point.identity(self._folder)
                _log.info("mounted", path=self._folder)
                systemd.notify("READY=1")
                if self._ready is not None:
                    _detach(self._ready)
                event = self._events.next(None)
        finally:
            systemd.notify("STOPPING=1")
            self._leave(thread)
        if self._error is not None:
            raise Failure(f"{shown(self._folder)} cannot be mounted: libfuse refused ({self._error})")
        if event is None:
            raise Failure(f"{shown(self._folder)} cannot be mounted: the kernel did not answer")
        _log.info("unmounted", path=self._folder, why=event)
        if thread.is_alive():
            # A reader is still waiting inside. libfuse's threads would meet an interpreter that is being taken down.
            log.flush()
            os._exit(Exit.DONE)
        contents.close()
        trees.close()
        return Exit.DONE

    def _contents(self) -> "Contents":
        from dumbwaiter_fs.cache import Cache, blocks_of
        from dumbwaiter_fs.content import Contents
        from dumbwaiter_fs.links import Links
        from dumbwaiter_fs.remote import DEADLINE, Remote

        limit = self._settings.mount.cache_size
        cache = Cache(blocks_of(self._where.cache), limit) if limit else None
        remote = Remote(
            float(os.environ.get("DUMBWAITER_MOUNT_DEADLINE") or DEADLINE),
            cache,
            Links(self._where.socket, self._where.state),
            Hits(self._where.cache) if cache else None,
        )
        return Contents(self._settings.folder_of, remote)

    def _serve(self, operations: "Operations", trees: "Trees", url: "URL") -> None:
        from dumbwaiter_fs import binding
        from dumbwaiter_fs.operations import ENCODING

        try:
            descriptor = self._descriptor()
            if descriptor is None:
                binding.serve(operations, self._folder, ENCODING, {**self._options(), **_KERNEL, **_LIBFUSE})
            else:
                self._serve_fast(descriptor, operations, trees, url)
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            self._error = error
        self._events.put("ended")

    def _descriptor(self) -> int | None:
        """Mounts for the fast session. Returns None where libfuse's own is wanted, or is all that can be had."""
        from dumbwaiter_fs import binding
        from dumbwaiter_fs.descriptor import mounted

        wanted = self._settings.mount.session
        if wanted == "fusepy":
            return None
        try:
            return mounted(binding.library, self._folder, {**self._options(), **_KERNEL})
        except (OSError, AttributeError):
            if wanted == "fast" or mount_point.kind(self._folder) == mount_point.KIND:
                raise
            _log.warning("the fast session cannot be had", path=self._folder)
            return None

    def _serve_fast(self, descriptor: int, operations: "Operations", trees: "Trees", url: "URL") -> None:
        from dumbwaiter_fs.invalidation import Invalidation
        from dumbwaiter_fs.news import News
        from dumbwaiter_fs.session import Session
        from dumbwaiter_fs.wire import READ_MAX

        gc.collect()
        gc.freeze()  # a long listing makes many objects, and the modules need not be looked through for each
        session = Session(descriptor, operations, trees)
        if mount := mount_point.identity(self._folder):
            mount_point.read_ahead(mount, READ_MAX)
        kernel = Invalidation(descriptor, session.known, session.freshness, operations, self._mounted_on)
        news = News(url, trees, kernel)
        news.start()
        try:
            session.run()
        finally:
            news.close()
            os.close(descriptor)

    def _options(self) -> dict[str, Any]:
        return {
            "fsname": mount_point.NAME,
            "subtype": mount_point.NAME,
            "ro": True,
            "nosuid": True,
            "nodev": True,
            "default_permissions": True,
            "allow_other": self._settings.mount.allow_other,
        }

    def _leave(self, thread: threading.Thread) -> None:
        """Takes the mount off the folder, at once for new callers; waits a little for those inside."""
        end = time.monotonic() + LAST
        lazy = False
        while thread.is_alive() and time.monotonic() < end:
            if (folder := self._mounted_on()) is not None:
                try:
                    mount_point.unmount(folder, lazy=lazy)
                except Failure as failure:
                    if lazy:
                        _log.warning("cannot unmount", path=folder, why=str(failure))
                    lazy = True
                    continue
            thread.join(0.2)

    def _mounted_on(self) -> str | None:
        """Returns the folder on which our mount is: a signal can come before it is there, and when another one is."""
        if self._mount is None:
            return self._folder if mount_point.identity(self._folder) else None
        folder = mount_point.place(self._mount)
        return folder if folder is not None and mount_point.identity(folder) == self._mount else None


if __name__ == "__main__":
    sys.exit(main())
