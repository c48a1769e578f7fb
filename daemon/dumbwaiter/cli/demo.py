"""The whole product in one terminal, with no account: sandbox, daemon and mount, each a real process.

Drops files of every awkward kind into the watched folders, kills the daemon inside a large one, starts it again, and
compares every object with its original: in the sandbox's store, and through the mount with the originals gone.
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import click

from dumbwaiter.cli.session import Session, not_empty
from dumbwaiter.cli.words import size
from dumbwaiter.config.file import load
from dumbwaiter.errors import Failure
from dumbwaiter.model import MIB, Entry
from dumbwaiter.naming import join, shown

CHUNK = 4 * MIB  # the most that a kill may cost
BIG = "large film.mov"  # for NetEase, to be killed in
BIG_SIZE = 300 * MIB
PHOTO = "相册/照片 2026.jpg"
FILES: dict[str, int] = {
    "empty.txt": 0,
    "one byte.txt": 1,
    "exactly four.bin": 4 * MIB,
    "four and one.bin": 4 * MIB + 1,
    PHOTO: 300_000,
    "party 🎉.png": 70_000,
    os.fsdecode(b"not utf-8 \xff.dat"): 12_345,
    "clip.mov": 12 * MIB,
}
EMPTY = {"empty.txt"}
LARGE = {name for name, length in FILES.items() if length > 2 * MIB}
# What a provider's limits refuse is not dropped there.
LEFT_OUT: dict[str, set[str]] = {
    "jiandaoyun": EMPTY,
    "jimeng": EMPTY,
    "dreamina": EMPTY,
    "careyshop": LARGE,
    "careyshop-qiniu": LARGE,
    "careyshop-aliyun": LARGE,
    "xinhua": FILES.keys() - {PHOTO},  # JPEG only
}
# An empty JPEG's first segment and its end: enough for whoever looks at the content.
JPEG = bytes.fromhex("ffd8ffe000104a46494600010100000100010000"), bytes.fromhex("ffd9")


@click.command()
@click.option(
    "--seconds", type=click.FloatRange(min=0), default=0.0, help="Leave it running so long at the end, to look around."
)
@click.option("--keep", type=click.Path(), callback=not_empty, help="Folder to work in, and to leave behind.")
@click.pass_obj
def demo(session: Session, seconds: float, keep: str | None) -> None:
    """Shows all of it at work on this machine, and checks it byte for byte.

    \b
    dumbwaiter demo --seconds 60
    """
    with ExitStack() as stack:
        folder = (
            os.path.abspath(keep) if keep else stack.enter_context(tempfile.TemporaryDirectory(prefix="dumbwaiter-"))
        )
        _Demo(folder, stack).run(seconds)


class _Demo:
    """One run, in one folder."""

    def __init__(self, folder: str, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._environment = os.environ | {
            "DUMBWAITER_CONFIG": os.path.join(folder, "config.toml"),
            "DUMBWAITER_STATE": os.path.join(folder, "dumbwaiter/state"),
            "DUMBWAITER_CACHE": os.path.join(folder, "dumbwaiter/cache"),
            "DUMBWAITER_RUNTIME": os.path.join(folder, "dumbwaiter/run"),
        }
        self._session = Session(
            *(self._environment[f"DUMBWAITER_{name}"] for name in ("CONFIG", "STATE", "CACHE", "RUNTIME")),
            as_json=False,
            verbose=False,
            quiet=False,
        )
        log = open(os.path.join(_made(folder), "demo.log"), "ab")  # noqa: SIM115 - the stack closes it
        self._log = stack.enter_context(log)

    def run(self, seconds: float) -> None:
        base = self._start_sandbox()
        config = load(self._session.places.config)
        daemon = self._start_daemon()
        mount = config.mount.path
        assert mount is not None
        self._start_mount(mount)
        originals: dict[str, str] = {}
        for name, watch in config.watch.items():
            originals |= self._drop(name, watch.path)
        acknowledged = self._kill_inside(daemon)
        self._start_daemon()
        self._wait(len(originals))
        self._compare("in the store", originals, self._objects(base))
        self._tell_resent(base, acknowledged)
        self._tell_results(originals)
        self._list_others(base, mount)
        self._hide(originals)
        back = self._with_a_way_back(originals)
        self._compare("through the mount, originals gone", back, lambda place: os.path.join(mount, "files", place))
        _say("held", "every check, byte for byte")
        if seconds:
            _say("look", f"at {mount} for {seconds:.0f} s")
            time.sleep(seconds)

    # Programs

    def _start(self, *command: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "dumbwaiter", *command],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._stack.callback(_stop, process)
        return process

    def _start_sandbox(self) -> str:
        process = self._start("sandbox", "--data", self._folder)
        base = next((line.split()[1] for line in _output(process) if line.startswith("ready ")), None)
        if base is None:
            raise Failure(f"the sandbox did not start: {self._log.name}")
        _say("sandbox", f"{base}, everything in {self._folder}")
        return base

    def _start_daemon(self) -> "subprocess.Popen[str]":
        process = self._start("run")
        self._until(lambda: self._session.running, process, "the daemon")
        _say("daemon", f"runs as process {process.pid}")
        return process

    def _start_mount(self, mount: str) -> None:
        process = self._start("mount", mount)
        self._until(lambda: os.path.ismount(mount), process, "the mount")
        _say("mount", mount)

    def _until(self, ready: Callable[[], bool], process: "subprocess.Popen[str]", what: str) -> None:
        deadline = time.monotonic() + 30
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                with open(self._log.name, encoding="utf-8", errors="replace") as log:
                    last = log.read().strip().rpartition("\n")[2]
                raise Failure(f"{what} did not start: {last}")
            time.sleep(0.05)

    # Steps

    def _drop(self, watch: str, folder: str) -> dict[str, str]:
        """Writes the files and returns, by "WATCH/PATH", where they are."""
        places = {}
        files = {name: length for name, length in FILES.items() if name not in LEFT_OUT.get(watch, ())}
        if watch == "netease":
            files[BIG] = BIG_SIZE
        for name, length in files.items():
            path = os.path.join(folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            _write(path, length)
            places[join(watch, name)] = path
        total = size(sum(files.values()))
        _say("drop", f"{len(files)} files, {total}, for {watch}: {', '.join(map(shown, files))}")
        return places

    def _kill_inside(self, daemon: "subprocess.Popen[str]") -> int:
        """Kills the daemon as soon as a third of the large file is acknowledged; returns how much was."""
        for state in self._session.follow("GET", "/status?follow=1"):
            for job in state["jobs"]:
                if job["path"] == BIG and job["sent"] > job["size"] // 3:
                    daemon.kill()
                    daemon.wait()
                    _say("kill -9", f"the daemon, {size(job['sent'])} of {size(job['size'])} in")
                    return int(job["sent"])
            if state["totals"]["done"] and not state["totals"]["pending"] and not state["settling"]:
                break
        raise Failure("the large file was through before the daemon could be killed")

    def _wait(self, count: int) -> None:
        for state in self._session.follow("GET", "/status?jobs=0&follow=1"):
            totals = state["totals"]
            if totals["rejected"]:
                raise Failure(f"{totals['rejected']} files were rejected")
            if totals["done"] == count and not state["settling"]:
                _say("uploaded", f"{count} files")
                return

    def _entry(self, place: str) -> Entry:
        node = self._session.catalog.find(f"files/{place}")
        if node is None or not isinstance(node.file, Entry):
            raise Failure(f"{shown(place)} is not in the catalog")
        return node.file

    def _objects(self, base: str) -> Callable[[str], str]:
        """Returns what says where the sandbox keeps the object of a file."""
        buckets = {one["key"]: one["bucket"] for one in _ask(f"{base}/_sandbox/objects")}

        def place_of(place: str) -> str:
            key = self._entry(place).key
            return os.path.join(self._folder, "objects", buckets[key], *key.split("/"))

        return place_of

    def _with_a_way_back(self, originals: dict[str, str]) -> dict[str, str]:
        """Returns the files that their provider lets be read again."""
        back = {place: path for place, path in originals.items() if self._entry(place).url is not None}
        if gone := sorted({place.partition("/")[0] for place in originals.keys() - back.keys()}):
            _say(
                "no way back",
                f"from {', '.join(gone)}: {len(originals) - len(back)} files are compared in the store only",
            )
        return back

    def _compare(self, where: str, originals: dict[str, str], found: Callable[[str], str]) -> None:
        for place, path in originals.items():
            if _sha256(found(place)) != _sha256(path):
                raise Failure(f"{shown(place)} differs {where}")
        _say("equal", f"{len(originals)} files {where}")

    def _tell_resent(self, base: str, acknowledged: int) -> None:
        """Counts, from what the sandbox received, how much came twice."""
        entry = self._entry(f"netease/{BIG}")
        received = sum(
            one["received"]
            for one in _ask(f"{base}/_sandbox/log")
            if one["call"] == "put" and entry.key in one["target"]
        )
        again = received - entry.size
        _say("sent twice", f"{size(again)} after one kill at {size(acknowledged)}")
        if again > CHUNK:
            raise Failure(f"{again} bytes were sent twice, more than one chunk")

    def _tell_results(self, originals: dict[str, str]) -> None:
        """Shows what the providers made of the files: Xinhua's pictures, Jiandaoyun's records."""
        for entry in self._session.catalog.history(1000):
            place = entry.place
            if place not in originals:
                _say("result", f"{shown(place)}, {size(entry.size)}, beside its original")
            elif "record" in entry.facts and entry.path == PHOTO:
                _say("record", f"{entry.facts['record']} of the form holds {shown(place)}")

    def _list_others(self, base: str, mount: str) -> None:
        """Has somebody else put a file into the shop, and finds it in the mount once the shop's list is read."""
        content = "not uploaded by us"
        planted = _ask(
            f"{base}/_sandbox/plant", {"vendor": "careyshop", "path": "banner/spring.txt", "content": content}
        )
        *_, last = self._session.follow("POST", "/sync", {"provider": "careyshop"})
        place = join("keys/careyshop", planted["key"])
        with open(os.path.join(mount, place), encoding="utf-8") as file:
            if "error" in last or file.read() != content:
                raise Failure(f"{place} differs from what somebody else put into the shop")
        _say("others", f"{last['new']} of {last['listed']} files in the shop are not ours, {place} is one")

    def _hide(self, originals: dict[str, str]) -> None:
        """Moves the originals out of the watched folders."""
        away = _made(os.path.join(self._folder, "originals"))
        for number, (place, path) in enumerate(originals.items()):
            originals[place] = os.path.join(away, str(number))
            os.rename(path, originals[place])


def _ask(url: str, body: Any = None) -> Any:
    with urllib.request.urlopen(url, body and json.dumps(body).encode()) as answer:  # noqa: S310 - our own sandbox
        return json.load(answer)


def _say(step: str, text: str) -> None:
    print(f"{step:>12}  {text}", flush=True)


def _made(folder: str) -> str:
    os.makedirs(folder, exist_ok=True)
    return folder


def _write(path: str, length: int) -> None:
    numbers = random.Random(length)
    head, end = JPEG if path.endswith(".jpg") else (b"", b"")
    with open(path, "wb") as file:
        file.write(head)
        length -= len(head) + len(end)
        while length:
            piece = numbers.randbytes(min(length, MIB))
            file.write(piece)
            length -= len(piece)
        file.write(end)


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _output(process: "subprocess.Popen[str]") -> Iterator[str]:
    assert process.stdout is not None
    return iter(process.stdout.readline, "")


def _stop(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()
