"""Runs the benchmarks, prints machine, versions and tables, and writes them as JSON to `results/`."""

import argparse
import json
import os
import re
import signal
import sys
from types import FrameType

from tests.bench import big_file, machine

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
    parser.add_argument("--size", type=size, default="2G", help="of the big file (2G)")
    parser.add_argument("--rounds", type=int, default=5, help="of which the medians are shown (5)")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    signal.signal(signal.SIGTERM, _end)
    machine.require("curl", package="curl")
    facts = machine.facts()
    print(*(f"{name:9} {value}" for name, value in facts.items()), sep="\n", flush=True)
    outcome = big_file.run(options.size, options.rounds)
    print(big_file.table(outcome))
    path = _write("big-file", {"machine": facts, **outcome})
    print(f"\nwritten to {os.path.relpath(path)}")


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
