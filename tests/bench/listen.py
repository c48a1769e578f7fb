"""One listener as a process of its own: `python -m tests.bench.listen KIND ROOT`.

It prints a line when it listens and, once its input ends, when it was told of each file, by CLOCK_MONOTONIC, with its
CPU seconds. "ours" is dumbwaiter's watcher, "observer" watchdog's Observer, "raw" the least that a recursive reader of
inotify does: one descriptor in the loop, new folders watched and listed.
"""

import asyncio
import ctypes
import json
import os
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

MASK = 0x8 | 0x80 | 0x100 | 0x1000000 | 0x2000000  # close_write, moved_to, create, only folders, no links
FOLDER, ARRIVED, OVERFLOW = 0x40000000, 0x180, 0x4000
Seen = Callable[[str], None]


class Raw:
    """Overflows are counted, and that is all."""

    def __init__(self, root: str, seen: Seen, loop: asyncio.AbstractEventLoop) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._seen = seen
        self._folders: dict[int, bytes] = {}
        self.overflows = 0
        self._add(os.fsencode(root))
        loop.add_reader(self._fd, self._read)

    def _add(self, folder: bytes) -> None:
        watch = self._libc.inotify_add_watch(self._fd, folder, MASK)
        if watch < 0:
            return
        self._folders[watch] = folder
        with os.scandir(folder) as listing:
            for entry in listing:
                if entry.is_dir(follow_symlinks=False):
                    self._add(entry.path)
                else:
                    self._seen(os.fsdecode(entry.name))

    def _read(self) -> None:
        data = os.read(self._fd, 1 << 18)
        at = 0
        while at < len(data):
            watch, mask, _, length = struct.unpack_from("iIII", data, at)
            name = data[at + 16 : at + 16 + length].rstrip(b"\0")
            at += 16 + length
            if mask & OVERFLOW:
                self.overflows += 1
            elif mask & FOLDER:
                if mask & ARRIVED and watch in self._folders:
                    self._add(self._folders[watch] + b"/" + name)
            elif mask & 0x88:
                self._seen(os.fsdecode(name))


class Ours:
    def __init__(self, root: str, seen: Seen, loop: asyncio.AbstractEventLoop) -> None:
        from dumbwaiter.files.ignore import Rules
        from dumbwaiter.files.roots import Root
        from dumbwaiter.watch.watcher import Watcher

        self.sighted: set[str] = set()  # found in a new folder; nobody heard its close

        def all_seen(sightings: list[Any]) -> None:
            for sighting in sightings:
                name = sighting.path.rpartition("/")[2]
                (seen if sighting.closed else self.sighted.add)(name)

        self._watcher = Watcher([Root("bench", root, Rules())], all_seen, lambda *_: None, loop)
        self._watcher.start()

    @property
    def overflows(self) -> int:
        return self._watcher.states()["bench"].overflows


class Observer:
    overflows = 0

    def __init__(self, root: str, seen: Seen, loop: asyncio.AbstractEventLoop) -> None:
        from watchdog.events import FileSystemEventHandler
        from watchdog.observers import Observer as Observing

        class Handler(FileSystemEventHandler):
            def on_closed(self, event: Any) -> None:
                loop.call_soon_threadsafe(seen, os.path.basename(event.src_path))

            def on_moved(self, event: Any) -> None:
                loop.call_soon_threadsafe(seen, os.path.basename(event.dest_path))

        observer = Observing()
        observer.schedule(Handler(), root, recursive=True)
        observer.start()


KINDS: dict[str, Any] = {"ours": Ours, "raw": Raw, "observer": Observer}


async def listen(kind: str, root: str) -> None:
    loop = asyncio.get_running_loop()
    times: dict[str, float] = {}
    listener = KINDS[kind](root, lambda name: times.setdefault(name, time.monotonic()), loop)
    before = time.process_time()
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    cpu = time.process_time() - before
    known = times.keys() | getattr(listener, "sighted", set())
    told = {"cpu": cpu, "overflows": listener.overflows, "times": times, "known": sorted(known)}
    print(json.dumps(told), flush=True)
    os._exit(0)  # an Observer may take its time


if __name__ == "__main__":
    asyncio.run(listen(*sys.argv[1:3]))
