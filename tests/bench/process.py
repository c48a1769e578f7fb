"""Programs under measurement: started, watched and surely ended."""

import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any

from msgspec import Struct

SAMPLE = 0.01  # seconds between two looks at a peak that vanishes with its process
TICKS = os.sysconf("SC_CLK_TCK")
# A proxy is no part of what is measured, and dumbwaiter would use a slower transport for one.
HIDDEN = {"http_proxy", "https_proxy", "all_proxy", "ftp_proxy", "no_proxy", "dumbwaiter_transport"}


class Usage(Struct, frozen=True):
    """What a whole run of a program cost."""

    started: float  # CLOCK_MONOTONIC, as all times here
    ended: float
    cpu: float  # seconds, user and system
    peak: float  # MiB


def environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.lower() not in HIDDEN} | more


def start(
    command: Sequence[str],
    env: Mapping[str, str] | None = None,
    *,
    stdout: int | IO[bytes],
    stderr: int | IO[bytes] | None = None,
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        command, env=dict(env or environment()), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
    )


def end(process: "subprocess.Popen[Any]", patience: float = 15.0) -> None:
    """Ends a process that may have ended already: politely, then not."""
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def measure(command: Sequence[str], more: Mapping[str, str] | None = None) -> Usage:
    """Runs a program to its end. Raises RuntimeError with its words when it fails."""
    started = time.monotonic()
    process = start(command, environment(**(more or {})), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        peak = _peak_until_end(process.pid)
        ended = time.monotonic()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        if process.returncode is None:
            end(process)
    assert process.stderr is not None
    with process.stderr:
        words = process.stderr.read().decode(errors="replace").strip()
    if process.returncode:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}: {words}")
    return Usage(started, ended, used.ru_utime + used.ru_stime, peak)


def _peak_until_end(pid: int) -> float:
    """Waits for the end and returns the last peak seen; what wait4 tells would include the parent's memory at the fork."""
    highest = 0.0
    watch = os.pidfd_open(pid)
    try:
        while not select.select([watch], [], [], SAMPLE)[0]:
            highest = max(highest, peak(pid))
    finally:
        os.close(watch)
    return highest


def peak(pid: int) -> float:
    """Returns the most memory that a process ever held, in MiB; 0 for one that has ended."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def cpu(pid: int) -> float:
    """Returns the CPU seconds that a process has used until now, all its threads."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
