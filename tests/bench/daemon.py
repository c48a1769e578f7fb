"""One installation of dumbwaiter, fresh, as a process of its own, and the clock around one file."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import Any, Self

from tests.bench import process
from tests.bench.sink import SinkProcess

PATIENCE = 600.0  # seconds until something is stuck
LOOK = 0.001  # seconds between two looks at the journal, which begin when the sink has everything
MANY_LOOK = 0.01  # where an answer costs more
QUIET = 0.5  # seconds for the start's own work to end
WATCH = """
[watch.bench]
path = "{path}"
provider = "{name}"
settle = "200ms"
"""


class Daemon:
    """Runs inside `with`. The watched folder lies in `fast`, beside the file; journal and log lie in `slow`, on a disk."""

    def __init__(
        self, fast: str, slow: str, provider: str, *, name: str = "netease", more: Mapping[str, str] | None = None
    ) -> None:
        self.folder = os.path.join(fast, "watched")
        self._log = os.path.join(slow, "daemon.log")
        self._journal = os.path.join(slow, "state", "journal.db")
        os.makedirs(self.folder, exist_ok=True)
        config = os.path.join(slow, "config.toml")
        with open(os.open(config, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(provider + WATCH.format(path=self.folder, name=name))
        self.environment = process.environment(
            DUMBWAITER_CONFIG=config,
            DUMBWAITER_STATE=os.path.join(slow, "state"),
            DUMBWAITER_CACHE=os.path.join(slow, "cache"),
            DUMBWAITER_RUNTIME=os.path.join(slow, "run"),
            **(more or {}),
        )

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            log = stack.enter_context(open(self._log, "ab"))
            self._process = process.start(_command("run"), self.environment, stdout=log, stderr=log)
            stack.callback(process.end, self._process)
            deadline = time.monotonic() + 60
            while not self._watches():
                self._look(deadline)
                time.sleep(0.1)
            time.sleep(QUIET)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def take(self, source: str) -> str:
        """Moves a file or a folder into the watched folder and returns its place there."""
        place = os.path.join(self.folder, os.path.basename(source))
        os.rename(source, place)
        return place

    def until_stored(self, count: int) -> float:
        """Waits for so many files in the catalog and returns when the last one's commit was seen."""
        return self._until("SELECT count(*) FROM entries", count)

    def until_sent(self, count: int) -> None:
        """Waits until the journal knows that so many bytes of the one file were acknowledged."""
        self._until("SELECT coalesce(max(sent), 0) FROM jobs", count)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _until(self, question: str, count: int) -> float:
        deadline = time.monotonic() + PATIENCE
        with closing(sqlite3.connect(f"file:{self._journal}?mode=ro", uri=True)) as journal:
            while journal.execute(question).fetchone()[0] < count:
                self._look(deadline)
                time.sleep(LOOK if count == 1 else MANY_LOOK)
        return time.monotonic()

    def bring(self, file: str, sink: SinkProcess) -> dict[str, float]:
        """Moves a file into the watched folder and waits until it is done. Returns the measured figures."""
        size = os.path.getsize(file)
        pid = self._process.pid
        place = os.path.join(self.folder, os.path.basename(file))
        cpu = process.cpu(pid)
        dropped = time.monotonic()
        os.rename(file, place)
        try:
            deadline = dropped + PATIENCE
            while not sink.ready(1.0):
                self._look(deadline)
            arrival = sink.arrival()
            committed = self._until_done(size, deadline)
            cpu = process.cpu(pid) - cpu
            peak = process.peak(pid)
        finally:
            os.rename(place, file)
        assert arrival["bytes"] == size, f"{arrival['bytes']} bytes reached the sink, not {size}"
        return {
            "first": arrival["first"],
            "seconds": committed - arrival["first"],
            "whole": committed - dropped,
            "wire": arrival["last"] - arrival["first"],
            "cpu": cpu,
            "peak": peak,
            "requests": arrival["requests"],
            "connections": arrival["connections"],
        }

    def _until_done(self, size: int, deadline: float) -> float:
        """Returns when the commit that ended the job and catalogued its file was seen."""
        with closing(sqlite3.connect(f"file:{self._journal}?mode=ro", uri=True)) as journal:
            while True:
                row = journal.execute("SELECT size, verified FROM entries").fetchone()
                if row is not None:
                    seen = time.monotonic()
                    break
                self._look(deadline)
                time.sleep(LOOK)
            assert row == (size, "size"), f"the catalog holds {row}"
            states = journal.execute("SELECT state, sent, resent FROM jobs").fetchall()
            assert states == [("done", size, 0)], f"the journal holds {states}"
        return seen

    def _watches(self) -> bool:
        done = subprocess.run(
            _command("--json", "status"),
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        status: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
        return any(watch["state"] == "watching" for watch in status.get("watches", []))

    def _look(self, deadline: float) -> None:
        """Raises RuntimeError with the daemon's own words when it has ended, or the time is up."""
        code = self._process.poll()
        if code is not None or time.monotonic() > deadline:
            with open(self._log, encoding="utf-8", errors="replace") as log:
                raise RuntimeError(
                    f"the daemon {'is stuck' if code is None else f'ended with {code}'}:\n{log.read()[-4000:]}"
                )


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "dumbwaiter", *words]
