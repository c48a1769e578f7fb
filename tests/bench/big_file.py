"""One big file through the whole daemon, beside `curl -T` of the same bytes.

Ours is a process that watches a folder; the file is renamed into it, settles, and goes in 4 MiB chunks of the NOS protocol
into a raw sink, each chunk a row of the journal; it is done when the commit that catalogues it is seen. Theirs is `curl`
(see there) into the same sink. The clock runs for both from the first byte that reaches the sink: for ours until that
commit, for curl until its process has ended. The cases take turns; a ratio is made of two neighbours in one round.
"""

import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from tests.bench import curl
from tests.bench.daemon import Daemon
from tests.bench.outcome import medians
from tests.bench.sink import SinkProcess
from tests.bench.vendor import Vendor

OURS, PIECES, WHOLE = "dumbwaiter", "curl -T, 4 MiB requests", "curl -T, one body"
GB = 1e9
MB = 1e6
SPARE = 1 << 28  # bytes to leave free
WRITE = 1 << 24


def run(size: int, rounds: int) -> dict[str, Any]:
    """Measures and returns every round, the medians and the ratios."""
    with ExitStack() as stack:
        fast = stack.enter_context(tempfile.TemporaryDirectory(prefix="dumbwaiter-bench-", dir=_fast(2 * size)))
        slow = stack.enter_context(tempfile.TemporaryDirectory(prefix="dumbwaiter-bench-"))
        print(f"{'file':9} {size / (1 << 20):.0f} MiB in {fast}; journal in {slow}\n", flush=True)
        file = os.path.join(fast, "film.bin")
        _make(file, size)
        pieces = curl.cut(file, os.path.join(fast, "pieces"))
        sink = stack.enter_context(SinkProcess())
        vendor = Vendor(sink.url, size)
        stack.callback(vendor.close)
        by_request = curl.requests(pieces, sink.url, os.path.join(slow, "pieces.conf"))
        by_body = curl.one_body(file, sink.url, os.path.join(slow, "whole.conf"))
        cases: dict[str, Callable[[], dict[str, float]]] = {
            OURS: lambda: _ours(file, sink, vendor, slow),
            PIECES: lambda: curl.send(by_request, size, sink),
            WHOLE: lambda: curl.send(by_body, size, sink),
        }
        taken: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
        for number in range(rounds):
            for name, case in cases.items():
                taken[name].append(_round(name, number, case(), size))
    return {"size": size, "rounds": taken, "medians": medians(taken), "ratios": _ratios(taken)}


def table(outcome: dict[str, Any]) -> str:
    """Returns the medians as a table."""
    lines = [
        "",
        f"medians of {len(outcome['rounds'][OURS])} rounds; MB is 10^6 bytes, GB 10^9; ratios are medians of the rounds' own",
        "",
        "| | MB/s | of curl, 4 MiB | of curl, one body | CPU s/GB | peak MiB | from the drop, MB/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in outcome["medians"].items():
        ratios = outcome["ratios"][name]
        lines.append(
            f"| {name} | {one['mb_per_s']:.0f} | {ratios[PIECES]:.2f} | {ratios[WHOLE]:.2f} "
            f"| {one['cpu_s_per_gb']:.3f} | {one['peak']:.0f} | {one['whole_mb_per_s']:.0f} |"
        )
    return "\n".join(lines)


def _ours(file: str, sink: SinkProcess, vendor: Vendor, slow: str) -> dict[str, float]:
    """Brings the file to a new installation: one that knows it would not send it again."""
    with (
        tempfile.TemporaryDirectory(dir=os.path.dirname(file)) as here,
        tempfile.TemporaryDirectory(dir=slow) as there,
        Daemon(here, there, vendor.config()) as daemon,
    ):
        return daemon.bring(file, sink)


def _fast(needed: int) -> str | None:
    """Returns the folder of a file system in memory if it has room, else None for the usual place."""
    shared = "/dev/shm"
    if os.path.isdir(shared) and shutil.disk_usage(shared).free > needed + SPARE:
        return shared
    print(
        f"{shared} has no room for {needed >> 20} MiB: the files are on disk, and page-cached at best",
        file=sys.stderr,
    )
    return None


def _make(file: str, size: int) -> None:
    with open(file, "wb") as target:
        left = size
        while left:
            left -= target.write(os.urandom(min(WRITE, left)))


def _round(name: str, number: int, figures: dict[str, float], size: int) -> dict[str, float]:
    """Adds what follows from the figures, and tells of the round."""
    del figures["first"]
    figures |= {
        "mb_per_s": size / MB / figures["seconds"],
        "whole_mb_per_s": size / MB / figures["whole"],
        "cpu_s_per_gb": figures["cpu"] / (size / GB),
    }
    print(
        f"round {number + 1}  {name:24} {figures['mb_per_s']:6.0f} MB/s  {figures['seconds']:.3f} s"
        f" (whole {figures['whole']:.3f}, on the wire {figures['wire']:.3f})  CPU {figures['cpu']:.2f} s"
        f"  peak {figures['peak']:.0f} MiB",
        flush=True,
    )
    return figures


def _ratios(taken: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Returns each case's rate over each other's, pair by pair, and of the pairs the median."""
    return {
        name: {
            peer: statistics.median(
                ours["mb_per_s"] / theirs["mb_per_s"] for ours, theirs in zip(rounds, taken[peer], strict=True)
            )
            for peer in taken
        }
        for name, rounds in taken.items()
    }
