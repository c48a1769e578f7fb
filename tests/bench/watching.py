"""How soon and how surely the watcher hears, beside a raw reader of inotify and watchdog's Observer.

Latency from a file's close, in another process, to the handler in the loop; the same right after a file left the tree;
then 100,000 files as fast as they can be made, 2,000 new folders three deep with a file each at once, and the whole
daemon under both, once stopped (SIGSTOP) for five seconds, with what reached its journal.
"""

import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from typing import Any

from tests.bench.daemon import Daemon

KINDS = ("raw", "ours", "observer")
PATIENCE = 120.0  # seconds until what has not come is lost
QUIET = 3.0  # seconds without news of anything
SMALL = """
import json, os, sys, time
root, aside, count, gap, leave = sys.argv[1], sys.argv[2], *map(float, sys.argv[3:6])
closed = {}
for number in range(int(count)):
    if leave:
        open(f"{root}/leaves", "wb").close()
        time.sleep(gap)
        os.rename(f"{root}/leaves", f"{aside}/left")
    with open(f"{root}/f{number}", "wb") as file:
        file.write(b"x")
    closed[f"f{number}"] = time.monotonic()
    time.sleep(gap)
print(json.dumps(closed))
"""
BURST = """
import os, sys, time
root, count = sys.argv[1], int(sys.argv[2])
os.mkdir(f"{root}/many")
for number in range(count):
    file = os.open(f"{root}/many/f{number}", os.O_WRONLY | os.O_CREAT)
    os.write(file, b"x")
    os.close(file)
print(time.monotonic())
"""
RACE = """
import os, sys, time
root, count = sys.argv[1], int(sys.argv[2])
for number in range(count):
    os.makedirs(f"{root}/r{number}/b/c")
    with open(f"{root}/r{number}/b/c/f{number}", "wb") as file:
        file.write(b"x")
print(time.monotonic())
"""
# Nothing listens there: what is measured ends in the journal.
NOWHERE = """
[provider.netease]
broker = "netease"
app_key = "benchmark"
app_secret = "benchmark"
api = "http://127.0.0.1:9"
lbs = "http://127.0.0.1:9"
"""


def _listened(kind: str, script: str, *words: object) -> tuple[Any, dict[str, Any]]:
    """Returns what a writer printed and what a listener heard of it."""
    with tempfile.TemporaryDirectory(prefix="dumbwaiter-bench-", dir="/dev/shm") as folder:
        root = os.path.join(folder, "tree")
        os.mkdir(root)
        command = [sys.executable, "-m", "tests.bench.listen", kind, root]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as listener:
            assert listener.stdout is not None
            assert listener.stdout.readline() == "ready\n"
            said = json.loads(_write(script, root, *words))
            time.sleep(QUIET)
            heard, _ = listener.communicate("", PATIENCE)
    facts: dict[str, Any] = json.loads(heard)
    return said, facts


def _write(script: str, *words: object) -> str:
    command = [sys.executable, "-c", script, *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def latency(kind: str, count: int, *, leave: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as aside:
        closed, heard = _listened(kind, SMALL, aside, count, 0.004, int(leave))
    late = sorted(heard["times"][name] - at for name, at in closed.items() if name in heard["times"])
    return {
        "p50_ms": statistics.median(late) * 1e3,
        "p99_ms": late[int(len(late) * 0.99) - 1] * 1e3,
        "lost": count - len(late),
    }


def heard(kind: str, script: str, count: int) -> dict[str, float]:
    ended, facts = _listened(kind, script, count)
    times = [at for name, at in facts["times"].items() if name.startswith("f")]
    return {
        "lost": count - sum(name.startswith("f") for name in facts["known"]),
        "overflows": facts["overflows"],
        "drain": max(0.0, max(times, default=ended) - ended),
        "cpu_us_per_file": facts["cpu"] / count * 1e6,
    }


def journalled(script: str, count: int, stopped: float = 0.0) -> dict[str, float]:
    """What of the writer's files reaches the journal of a whole daemon."""
    with (
        tempfile.TemporaryDirectory(prefix="dumbwaiter-bench-", dir="/dev/shm") as fast,
        tempfile.TemporaryDirectory(prefix="dumbwaiter-bench-", dir="/dev/shm") as slow,
        Daemon(fast, slow, NOWHERE) as daemon,
        closing(sqlite3.connect(f"file:{slow}/state/journal.db?mode=ro", uri=True)) as journal,
    ):
        started = time.monotonic()
        if stopped:
            os.kill(daemon.pid, signal.SIGSTOP)
        try:
            ended = float(_write(script, daemon.folder, count))
            time.sleep(max(0.0, started + stopped - time.monotonic()))
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
        known, last = 0, time.monotonic()
        while known < count and time.monotonic() - last < PATIENCE:
            found = journal.execute("SELECT count(DISTINCT parent || '/' || name) FROM jobs").fetchone()[0]
            if found > known:
                known, last = found, time.monotonic()
            time.sleep(0.1)
    return {"lost": count - known, "writer": ended - started, "journalled_after": last - ended}


def run(rounds: int, burst: int, race: int) -> dict[str, Any]:
    outcome: dict[str, Any] = {}
    for name, leave, count in (("latency", False, 500), ("latency after a move out", True, 60)):
        taken: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
        for _ in range(rounds):
            for kind in KINDS:
                taken[kind].append(latency(kind, count, leave=leave))
        outcome[name] = {
            kind: {key: statistics.median(one[key] for one in figures) for key in figures[0]}
            for kind, figures in taken.items()
        }
        raw, ours, observer = (outcome[name][kind]["p50_ms"] for kind in KINDS)
        outcome[name]["ratios"] = {"of raw": ours / raw, "of Observer": ours / observer}
        print(name, json.dumps(outcome[name], indent=1), flush=True)
    for name, script, count in (("burst", BURST, burst), ("new folders", RACE, race)):
        outcome[name] = {kind: heard(kind, script, count) for kind in KINDS}
        outcome[name]["daemon"] = journalled(script, count)
        print(name, json.dumps(outcome[name], indent=1), flush=True)
    outcome["stopped for 5 s"] = {"daemon": journalled(BURST, burst, 5.0)}
    print("stopped", json.dumps(outcome["stopped for 5 s"]), flush=True)
    return outcome


def table(outcome: dict[str, Any]) -> str:
    """Returns the latencies and losses as tables."""
    lines = ["", "| latency, ms | p50 | p99 | after a move out: p50 |", "|---|---|---|---|"]
    for kind in KINDS:
        one, after = outcome["latency"][kind], outcome["latency after a move out"][kind]
        lines.append(f"| {kind} | {one['p50_ms']:.2f} | {one['p99_ms']:.2f} | {after['p50_ms']:.2f} |")
    lines += ["", "| lost | burst | new folders | stopped for 5 s |", "|---|---|---|---|"]
    for kind in (*KINDS, "daemon"):
        cells = [outcome[what].get(kind, {}).get("lost", "") for what in ("burst", "new folders", "stopped for 5 s")]
        lines.append(f"| {kind} | {cells[0]} | {cells[1]} | {cells[2]} |")
    return "\n".join(lines)
