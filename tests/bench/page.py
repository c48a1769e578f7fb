"""Makes docs/benchmarks.md and its plot from the results: `python -m tests.bench.page`, with `--check` to compare only.

Every figure of the page comes from `results/`, with the load of the machine when it was taken; what was not measured
is said not to be.
"""

import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

HERE = os.path.dirname(os.path.abspath(__file__))
DOCS = os.path.join(os.path.dirname(os.path.dirname(HERE)), "docs")
RESULTS = os.path.join(HERE, "results")
Get = Callable[[dict[str, Any]], float]

OURS = "dumbwaiter"
SMALL, SMALL_MANY = "dumbwaiter, 8", "dumbwaiter, 64"


class Row(NamedTuple):
    """One goal: a figure that is to be at least or at most so much."""

    number: int
    what: str
    result: str
    figure: Get
    sense: str  # "≥" or "≤"
    goal: float


def ratio(ours: str, theirs: str) -> Get:
    return lambda of: float(of["ratios"][ours][theirs])


def share(ours: str, theirs: str, figure: str) -> Get:
    return lambda of: of["medians"][ours][figure] / of["medians"][theirs][figure]


def lost(*names: str) -> Get:
    return lambda of: sum(of[name]["daemon"]["lost"] for name in names)


ROWS = (
    Row(
        1,
        "big file, parts one after another: rate of `curl -T`'s",
        "big-file",
        ratio(OURS, "curl -T, one body"),
        "≥",
        1.15,
    ),
    Row(
        1, "big file, parts with CRC-64 side by side: rate of `curl -T`'s", "uploads", ratio(OURS, "curl -T"), "≥", 1.15
    ),
    Row(1, "the same: rate of rclone's", "uploads", ratio(OURS, "rclone, S3"), "≥", 4.5),
    Row(1, "the same: CPU of rclone's", "uploads", share(OURS, "rclone, S3", "cpu_s_per_gb"), "≤", 0.25),
    Row(1, "the same: peak memory, MiB", "uploads", lambda of: of["medians"][OURS]["peak"], "≤", 70),
    Row(2, "big file, TLS and SHA-1: rate of `curl -T`'s over TLS", "uploads-tls", ratio(OURS, "curl -T"), "≥", 0.95),
    Row(3, "small files: rate of `rclone copy`'s", "small", ratio(SMALL, "rclone copy --transfers 8"), "≥", 1.3),
    Row(3, "small files: rate of the qiniu SDK's", "small", ratio(SMALL, "qiniu SDK, 8 threads"), "≥", 15),
    Row(3, "small files: 64 at once, of 8 at once", "small", ratio(SMALL_MANY, SMALL), "≥", 0.9),
    Row(
        4,
        "a closed file is heard of: median time of raw inotify's",
        "watching",
        lambda of: of["latency"]["ratios"]["of raw"],
        "≤",
        1.2,
    ),
    Row(
        4,
        "the same: of watchdog's Observer's",
        "watching",
        lambda of: of["latency"]["ratios"]["of Observer"],
        "≤",
        0.45,
    ),
    Row(
        4,
        "the same after a file left the tree: of raw inotify's",
        "watching",
        lambda of: of["latency after a move out"]["ratios"]["of raw"],
        "≤",
        1.2,
    ),
    Row(
        5,
        "files lost of a burst, of new folders, and while the daemon stood still",
        "watching",
        lost("burst", "new folders", "stopped for 5 s"),
        "≤",
        0,
    ),
    Row(6, "rescan, two helpers: time of C's", "rescan", lambda of: of["ratios"]["two helpers"], "≤", 1.1),
    Row(6, "rescan, one process: time of C's", "rescan", lambda of: of["ratios"]["one process"], "≤", 1.8),
    Row(6, "rescan: memory gained, MiB", "rescan", lambda of: max(of["growth_mib"].values()), "≤", 10),
    Row(
        7,
        "durable steps: rate of plain SQLite's, NORMAL",
        "steps",
        ratio("dumbwaiter, NORMAL", "sqlite3, NORMAL"),
        "≥",
        0.8,
    ),
    Row(7, "durable steps: rate of plain SQLite's, FULL", "steps", ratio("dumbwaiter, FULL", "sqlite3, FULL"), "≥", 5),
    Row(7, "durable steps: rate of aiosqlite's", "steps", ratio("dumbwaiter, NORMAL", "aiosqlite, NORMAL"), "≥", 5),
    Row(
        8,
        "`ls -l` of 10,000: time of rclone mount's",
        "listing",
        lambda of: of["ratios"][OURS]["ls"]["rclone mount"],
        "≤",
        0.12,
    ),
    Row(
        8,
        "`find -size`: time of rclone mount's",
        "listing",
        lambda of: of["ratios"][OURS]["find"]["rclone mount"],
        "≤",
        0.08,
    ),
    Row(
        8,
        "`ls -l`: time of the local file system's",
        "listing",
        lambda of: of["ratios"][OURS]["ls"]["local files"],
        "≤",
        1.6,
    ),
    Row(
        9,
        "mount, first read from the cache: rate of rclone mount's",
        "mount-read",
        lambda of: of["ratios"]["first"]["dumbwaiter, from the cache"]["rclone mount"],
        "≥",
        7,
    ),
    Row(
        9,
        "mount, second read: rate of rclone mount's",
        "mount-read",
        lambda of: of["ratios"]["again"]["dumbwaiter, from the cache"]["rclone mount"],
        "≥",
        15,
    ),
    Row(10, "at rest: memory of Syncthing's", "idle", lambda of: of["ratios"]["memory of Syncthing's"], "≤", 0.3),
    Row(10, "at rest: CPU seconds in a minute", "idle", lambda of: of["dumbwaiter"]["cpu_s_per_minute"], "≤", 0.03),
    Row(
        10, "`status`: time of `python -c pass`'s", "idle", lambda of: of["ratios"]["status of python -c pass"], "≤", 3
    ),
    Row(11, "ten kills: bytes sent, of the file's", "resume", lambda of: of["ratio"], "≤", 1.08),
    Row(
        12,
        "Qiniu's hash: rate of `openssl dgst -sha1`'s",
        "hashes",
        ratio("qetag, 2 threads", "openssl dgst -sha1"),
        "≥",
        1.8,
    ),
    Row(12, "CRC-64: rate of crcmod's", "hashes", ratio("CRC-64", "CRC-64, crcmod"), "≥", 50),
)
HEAD = """# Benchmarks

Ours beside a peer, in turns, in one run, as a ratio: `make bench` (a quarter of an hour), `make bench ARGS=--quick` (two
minutes, nothing written), `python -m tests.bench --help`. This page is made from `tests/bench/results/`; which case
does what stands at the top of each module in `tests/bench/`. Loopback, page-cached files. A machine with other work
makes every ratio worse and none of them certain: the load stands beside it. What was learned: [performance](performance.md).

![How far each figure is from its goal](benchmarks.svg)

| # | what | measured | goal | | load |
| --- | --- | --- | --- | --- | --- |
"""


class Measured(NamedTuple):
    row: Row
    value: float | None
    load: str

    @property
    def met(self) -> bool:
        assert self.value is not None
        value = round(self.value, 6)  # a difference of hundredths is none of them exactly
        return value >= self.row.goal if self.row.sense == "≥" else value <= self.row.goal


def make() -> None:
    """Writes the page and the plot."""
    for name, text in _files():
        with open(os.path.join(DOCS, name), "w", encoding="utf-8") as file:
            file.write(text)


def stale() -> list[str]:
    """Returns which files are not what the results say."""
    wrong = []
    for name, text in _files():
        with open(os.path.join(DOCS, name), encoding="utf-8") as file:
            if file.read() != text:
                wrong.append(name)
    return wrong


def _files() -> Iterator[tuple[str, str]]:
    results = {one.result: _result(one.result) for one in ROWS}
    measured = [_measured(row, results[row.result]) for row in ROWS]
    yield "benchmarks.md", _text(measured, [one for one in results.values() if one])
    yield "benchmarks.svg", _plot([one for one in measured if one.value and one.row.goal])


def _result(name: str) -> dict[str, Any]:
    path = os.path.join(RESULTS, f"{name}.json")
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        content: dict[str, Any] = json.load(file)
    return content


def _measured(row: Row, result: dict[str, Any]) -> Measured:
    if not result:
        return Measured(row, None, "")
    return Measured(row, row.figure(result), result["machine"]["load"].split()[0])


def _text(measured: list[Measured], results: list[dict[str, Any]]) -> str:
    lines = []
    for one in measured:
        goal = f"{one.row.sense} {one.row.goal:g}"
        if one.value is None:
            lines.append(f"| {one.row.number} | {one.row.what} | not measured | {goal} | | |")
        else:
            met = "✓" if one.met else "not yet"
            lines.append(f"| {one.row.number} | {one.row.what} | {one.value:.3g} | {goal} | {met} | {one.load} |")
    newest = max((one["machine"] for one in results), key=lambda facts: str(facts["date"]))
    facts = [f"- {name}: {value}" for name, value in newest.items() if name not in {"load", "date"}]
    dates = sorted(one["machine"]["date"] for one in results)
    return "\n".join([HEAD + "\n".join(lines), "", f"Taken from {dates[0]} to {dates[-1]}:", "", *facts, ""])


WIDTH, LEFT, LINE, SPAN = 860, 470, 20, 10.0  # SPAN: a bar ends at so many times the goal, or so small a part of it


def _plot(measured: list[Measured]) -> str:
    """Draws how far each figure is on the good side (right) or the bad side of its goal, on a logarithmic scale."""
    height = LINE * (len(measured) + 2)
    middle = LEFT + (WIDTH - LEFT) / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{middle:.0f}" y="14" text-anchor="middle">the goal</text>',
    ]
    for index, one in enumerate(measured):
        assert one.value is not None
        assert one.row.goal > 0
        good = one.value / one.row.goal if one.row.sense == "≥" else one.row.goal / one.value
        length = max(-1.0, min(1.0, math.log(good) / math.log(SPAN))) * (WIDTH - LEFT) / 2
        top = LINE * (index + 1) + 3
        color = "#2a7f62" if one.met else "#c2703d"
        side, anchor = (4, "start") if length < 0 else (-4, "end")
        label = f"{one.row.number}  {one.row.what}".replace("`", "").replace("&", "&amp;")
        parts += [
            f'<text x="{LEFT - 8}" y="{top + 11}" text-anchor="end">{label}</text>',
            f'<rect x="{min(middle, middle + length):.1f}" y="{top}" width="{abs(length):.1f}" height="14" fill="{color}"/>',
            f'<text x="{middle + side:.1f}" y="{top + 11}" text-anchor="{anchor}">{one.value:.3g}</text>',
        ]
    parts += [f'<line x1="{middle}" x2="{middle}" y1="{LINE}" y2="{height - 8}" stroke="black"/>', "</svg>", ""]
    return "\n".join(parts)


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        if wrong := stale():
            sys.exit(f"not what the results say: docs/{', docs/'.join(wrong)}: python -m tests.bench.page")
    else:
        make()
