"""Starts the program without loading its libraries anew each time: a process that has them forks.

What runs is what `python -m dumbwaiter` (or `dumbwaiter_fs.mount`) runs, in a process of its own, with its own words, environment, folder and files.
Only the half second in which Python reads the libraries is spared; tests start it thousands of times.
"""

import atexit
import gc
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import IO, Any, NoReturn

STATUS = 16  # bytes that an exit code takes at most
EARLY = ("PYTHON", "LANG", "LC_", "TZ", "LD_", "MALLOC", "GLIBC")  # variables that Python reads as it starts


class Started:
    """A process that another one is the parent of: as much of `subprocess.Popen` as is needed of it."""

    def __init__(self, words: Sequence[str], pid: int, ended: int) -> None:
        self.args = list(words)
        self.pid = pid
        self.returncode: int | None = None
        self._ended = ended

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            poll = select.poll()
            poll.register(self._ended, select.POLLIN)
            if not poll.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.returncode = int(os.read(self._ended, STATUS))
            os.close(self._ended)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class Starter:
    """The process that forks; it ends with this one."""

    def __init__(self) -> None:
        self._door, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        self._environment = dict(os.environ)
        with theirs:
            number = theirs.fileno()
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(number)], stdin=subprocess.DEVNULL, pass_fds=[number]
            )
        atexit.register(self.close)

    def close(self) -> None:
        self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        self._process.wait()

    def can(self, environment: Mapping[str, str]) -> bool:
        """Whether it makes no difference for the program that Python is running already."""
        changed = self._environment.items() ^ environment.items()
        return not any(name.startswith(EARLY) for name, _ in changed)

    def start(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        folder: str | os.PathLike[str] | None,
        files: Sequence[IO[Any]],
        *,
        module: str = "dumbwaiter",
    ) -> Started:
        """Starts the program with these words, and these files as its stdin, stdout and stderr."""
        wish = {
            "module": module,
            "words": list(words),
            "environment": dict(environment),
            "folder": os.fspath(folder or os.getcwd()),
        }
        ended, status = os.pipe()
        order = os.memfd_create("order")
        try:
            os.write(order, json.dumps(wish).encode())
            os.lseek(order, 0, os.SEEK_SET)
            with self._lock:
                socket.send_fds(self._door, [b"."], [order, status, *(file.fileno() for file in files)])
                pid = int(self._door.recv(STATUS))
        finally:
            os.close(order)
            os.close(status)
        return Started(words, pid, ended)


@cache
def starter() -> Starter:
    """The one of this process."""
    return Starter()


def serve(door: socket.socket) -> str:
    """Forks for each order, and tells how each child ended. Returns what to run in a child; the arguments are set by then."""
    poll = select.poll()
    poll.register(door, select.POLLIN)
    running: dict[int, tuple[int, int]] = {}
    while True:
        for ready, _ in poll.poll():
            if ready in running:
                poll.unregister(ready)
                os.close(ready)
                pid, status = running.pop(ready)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with suppress(BrokenPipeError):
                    os.write(status, str(code).encode())
                os.close(status)
                continue
            word, descriptors, _, _ = socket.recv_fds(door, 1, 5)
            if not word:
                sys.exit()
            order, status, *files = descriptors
            pid = os.fork()
            if not pid:
                return become(order, files)
            for file in (order, *files):
                os.close(file)
            watched = os.pidfd_open(pid)
            running[watched] = pid, status
            poll.register(watched, select.POLLIN)
            door.send(str(pid).encode())


def become(order: int, files: Sequence[int]) -> str:
    """Has this child look as if Python had been started in it; returns what to run."""
    with open(order, "rb") as text:
        wish = json.load(text)
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    # What they stand for may be of another kind: a pipe, where it was a file.
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    os.environ.clear()
    os.environ.update(wish["environment"])
    os.chdir(wish["folder"])
    sys.path[0] = os.getcwd()
    sys.argv[1:] = wish["words"]
    return str(wish["module"])


def main() -> NoReturn:
    sys.path[0] = os.getcwd()
    for package in ("dumbwaiter", "dumbwaiter_fs"):
        for module in pkgutil.walk_packages(import_module(package).__path__, f"{package}."):
            if not {"__main__", "migrations"} & {*module.name.split(".")}:  # these do something as they are loaded
                import_module(module.name)
    gc.freeze()
    module = serve(socket.socket(fileno=int(sys.argv[1])))
    if module != "dumbwaiter":
        sys.exit(import_module(module).main())
    runpy.run_module("dumbwaiter", run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    main()
