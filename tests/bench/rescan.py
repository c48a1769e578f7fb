"""A rescan of unchanged files beside the C floor: what it costs to find that there is nothing to do.

The floor (`floor.c`) is compiled on the spot and compares nothing; ours compares every folder with the journal, once in
one process and once with its two helpers. Each round runs each case in a fresh process, in turn; time is that of the
scan itself for ours, of the whole process for C.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from tests.bench import machine, trees

HERE = os.path.dirname(__file__)
HOST = "bench"
C, ONE, TWO = "C floor", "one process", "two helpers"


def run(files: int, rounds: int) -> dict[str, object]:
    """Measures and returns every round and the ratios."""
    with (
        tempfile.TemporaryDirectory(prefix="dumbwaiter-bench-", dir="/dev/shm") as fast,
        tempfile.TemporaryDirectory(prefix="dumbwaiter-bench-") as slow,
    ):
        floor = os.path.join(slow, "floor")
        subprocess.run([machine.require("cc", package="gcc"), "-O2", "-o", floor, f"{HERE}/floor.c"], check=True)
        root = os.path.join(fast, "tree")
        trees.make(root, files)
        trees.known(os.path.join(slow, "state"), root, HOST)
        taken: dict[str, list[dict[str, float]]] = {C: [], ONE: [], TWO: []}
        for number in range(rounds):
            for name, figures in taken.items():
                figures.append(_floor(floor, root, files) if name == C else _ours(name, slow, root, files))
                print(f"round {number + 1}  {name:12} {figures[-1]['seconds']:.2f} s", figures[-1], flush=True)
    medians = {name: statistics.median(one["seconds"] for one in figures) for name, figures in taken.items()}
    ratios = {
        name: statistics.median(ours["seconds"] / c["seconds"] for ours, c in zip(figures, taken[C], strict=True))
        for name, figures in taken.items()
    }
    growth = {name: max(one.get("growth", 0.0) for one in figures) for name, figures in taken.items()}
    return {"files": files, "rounds": taken, "medians": medians, "ratios": ratios, "growth_mib": growth}


def _floor(floor: str, root: str, files: int) -> dict[str, float]:
    started = time.monotonic()
    done = subprocess.run([floor, root], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[0]) == files
    return {"seconds": time.monotonic() - started}


def _ours(name: str, slow: str, root: str, files: int) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.rescan", name]
    done = subprocess.run([*command, slow, root], capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    assert figures.pop("files") == files
    assert figures.pop("fresh") == 0
    return figures


def _case(name: str, slow: str, root: str) -> None:
    """One scan, in a process of its own: prints its figures."""
    from tests.bench.process import peak

    from dumbwaiter.files.ignore import Rules
    from dumbwaiter.store.database import journal_url, reading
    from dumbwaiter.store.folders import Folders
    from dumbwaiter.watch import rescan

    rescan.LARGE = 0 if name == TWO else sys.maxsize
    reader = reading(journal_url(os.path.join(slow, "state")))
    folders = Folders(reader, HOST)
    folders.surveyed(trees.WATCH)
    before = peak(os.getpid())
    started, cpu = time.monotonic(), time.process_time()
    passage = rescan.Rescan(folders, trees.WATCH, root, Rules(), trees.PROVIDER)
    files = fresh = 0
    while (step := passage.step()) is not None:
        files += step.files
        fresh += len(step.fresh)
    passage.gone()
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    reader.dispose()
    growth = peak(os.getpid()) - before
    print(json.dumps({"seconds": seconds, "own_cpu": cpu, "growth": growth, "files": files, "fresh": fresh}))


def table(outcome: dict[str, Any]) -> str:
    """Returns the medians as a table."""
    lines = ["", "| | s | of C | MiB more at the peak |", "|---|---|---|---|"]
    for name, seconds in outcome["medians"].items():
        lines.append(f"| {name} | {seconds:.2f} | {outcome['ratios'][name]:.2f} | {outcome['growth_mib'][name]:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    _case(*sys.argv[1:4])
