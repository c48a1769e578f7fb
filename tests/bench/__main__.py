"""Runs the benchmarks, prints machine, versions and tables, and writes them as JSON to `results/`."""

import argparse
import json
import os
import re
import signal
import sys
from types import FrameType
from typing import Any

from tests.bench import big_file, listing, machine, mount_read

RESULTS = os.path.join(os.path.dirname(__file__), "results")
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def size(text: str) -> int:
    """Returns the bytes of "512M" or "2G"."""
    match = re.fullmatch(r"(\d+)([KMG]?)", text.upper())
    if not match or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f'"{text}" is no size: write 512M or 2G')
    return int(match[1]) * UNITS[match[2]]


def main() -> None:
    parser = argparse.ArgumentParser("python -m tests.bench", description=__doc__)
    parser.add_argument(
        "what", nargs="*", choices=("big-file", "listing", "mount-read", []), help="all of them by default"
    )
    parser.add_argument("--files", type=int, default=100_000, help="in the tree that is listed (100000)")
    parser.add_argument("--million", type=int, default=1_000_000, help="files of which the memory is taken; 0: none")
    parser.add_argument(
        "--size", type=size, default="2G", help="of the big file (2G); half of it is read through the mount"
    )
    parser.add_argument("--rounds", type=int, default=5, help="of which the medians are shown (5)")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    signal.signal(signal.SIGTERM, _end)
    what = options.what or ("big-file", "listing", "mount-read")
    machine.require("curl", package="curl")
    facts = machine.facts()
    print(*(f"{name:9} {value}" for name, value in facts.items()), sep="\n", flush=True)
    if "big-file" in what:
        outcome = big_file.run(options.size, options.rounds)
        _tell("big-file", facts, outcome, big_file.table(outcome))
    if "listing" in what:
        outcome = listing.run(options.files, options.rounds, options.million)
        _tell("listing", facts, outcome, listing.table(outcome))
    if "mount-read" in what:
        outcome = mount_read.run(options.size // 2, options.rounds)
        _tell("mount-read", facts, outcome, mount_read.table(outcome))


def _tell(name: str, facts: dict[str, str], outcome: dict[str, Any], table: str) -> None:
    print(table)
    print(f"\nwritten to {os.path.relpath(_write(name, {'machine': facts, **outcome}))}")


def _write(name: str, content: object) -> str:
    os.makedirs(RESULTS, exist_ok=True)
    path = os.path.join(RESULTS, f"{name}.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
    return path


def _end(number: int, frame: FrameType | None) -> None:
    """Ends as an error would, so that files and processes are cleaned up."""
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
