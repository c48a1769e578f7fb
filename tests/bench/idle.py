"""What a daemon costs that has nothing to do, beside Syncthing on the same tree; and how long `status` takes.

The journal knows every file before the start, as after a first upload; the day's copy of it, a minute later, is over when the
rest is measured. Memory is PSS, of all processes of a program;
CPU is what 60 seconds of rest take.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from typing import Any

from tests.bench import machine, process, trees
from tests.bench.daemon import Daemon
from tests.bench.watching import NOWHERE

WATCHED_FOR = 60.0  # seconds of rest
SCANNED = 120.0  # seconds until Syncthing must have seen the tree
RUNS = 20  # of `status`
HOST = "bench"
FOLDER = """<folder id="bench" path="{root}" type="sendonly" rescanIntervalS="3600" fsWatcherEnabled="true"></folder>"""


def run(files: int, rest: float) -> dict[str, Any]:
    syncthing = machine.require("syncthing", package="syncthing")
    with tempfile.TemporaryDirectory(prefix="dumbwaiter-bench-", dir="/dev/shm") as fast:
        slow = os.path.join(fast, "slow")
        os.mkdir(slow)
        root = os.path.join(fast, "watched")
        os.mkdir(root)
        trees.make(root, files)
        trees.known(os.path.join(slow, "state"), root, HOST)
        outcome = {"dumbwaiter": _ours(fast, slow, rest), "syncthing": _theirs(syncthing, fast, root, rest)}
    ours, theirs = outcome["dumbwaiter"], outcome["syncthing"]
    return {
        "files": files,
        **outcome,
        "ratios": {
            "memory of Syncthing's": ours["pss_mib"] / theirs["pss_mib"],
            "status of python -c pass": ours["status"] / ours["python"],
        },
    }


def _ours(fast: str, slow: str, rest: float) -> dict[str, float]:
    with Daemon(fast, slow, NOWHERE) as daemon:
        time.sleep(rest)
        figures = _resting([daemon.pid])
        figures["status"] = _median([sys.executable, "-m", "dumbwaiter", "status"], daemon.environment)
        figures["python"] = _median([sys.executable, "-c", "pass"], daemon.environment)
    return figures


def _theirs(program: str, fast: str, root: str, rest: float) -> dict[str, float]:
    home = os.path.join(fast, "syncthing")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([program, "generate", "--home", home, "--no-default-folder"], check=True, **quiet)  # type: ignore[call-overload]
    config = os.path.join(home, "config.xml")
    with open(config, encoding="utf-8") as file:
        text = file.read()
    with open(config, "w", encoding="utf-8") as file:
        file.write(text.replace("<gui", FOLDER.format(root=root) + "<gui", 1))
    with ExitStack() as stack:
        words = [program, "serve", "--home", home, "--no-browser", "--no-upgrade", "--gui-address", "127.0.0.1:0"]
        log = stack.enter_context(open(os.path.join(fast, "syncthing.log"), "w+b"))
        peer = process.start(words, stdout=log, stderr=log)
        stack.callback(process.end, peer)
        deadline = time.monotonic() + SCANNED
        while b"Completed initial scan" not in (said := _said(log.name)):
            if peer.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Syncthing does not scan:\n{said[-2000:].decode(errors='replace')}")
            time.sleep(1)
        time.sleep(rest)
        return _resting(_family(peer.pid))


def _said(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _resting(pids: list[int]) -> dict[str, float]:
    before = _cpu(pids)
    time.sleep(WATCHED_FOR)
    return {"cpu_s_per_minute": _cpu(pids) - before, "pss_mib": sum(_pss(pid) for pid in pids)}


def _cpu(pids: list[int]) -> float:
    return sum(process.cpu(pid) for pid in pids)


def _pss(pid: int) -> float:
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:")) / 1024


def _family(pid: int) -> list[int]:
    children: list[int] = []
    for thread in os.listdir(f"/proc/{pid}/task"):  # any of them may have started another program
        with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
            children += map(int, file.read().split())
    return [pid, *(one for child in children for one in _family(child))]


def _median(command: list[str], environment: dict[str, str]) -> float:
    times = []
    for _ in range(RUNS):
        started = time.monotonic()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        times.append(time.monotonic() - started)
    return statistics.median(times)


def table(outcome: dict[str, Any]) -> str:
    """Returns the figures as a table."""
    lines = ["", "| | PSS, MiB | CPU s in a minute |", "|---|---|---|"]
    lines += [
        f"| {name} | {outcome[name]['pss_mib']:.0f} | {outcome[name]['cpu_s_per_minute']:.2f} |"
        for name in ("dumbwaiter", "syncthing")
    ]
    ours = outcome["dumbwaiter"]
    return "\n".join(
        [*lines, "", f"status {ours['status'] * 1e3:.0f} ms, python -c pass {ours['python'] * 1e3:.0f} ms"]
    )
