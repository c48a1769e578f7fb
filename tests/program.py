"""The program as its user has it: real processes, real folders, and the vendors on loopback."""

import asyncio
import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryFile
from types import SimpleNamespace
from typing import IO, Any, Self

import httpx

from dumbwaiter.catalog import Catalog
from dumbwaiter.cli.paths import files_below
from dumbwaiter.client import Connection
from dumbwaiter.facts import entry_facts
from dumbwaiter.model import Entry
from dumbwaiter.store.database import journal_url, reading
from dumbwaiter_sandbox import Sandbox
from dumbwaiter_sandbox.storage import Objects, StoredObject, open_database
from starter import Started, starter

PATIENCE = 60.0  # seconds until a wait has failed


class Vendors:
    """A sandbox in a thread of its own."""

    def __init__(self, data: Path, faults: str = "", **arguments: Any) -> None:
        self.sandbox = Sandbox(data, faults=faults, **arguments)
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=asyncio.run, args=(self._run(),))
        self._thread.start()
        self._ready.result(PATIENCE)
        self.http = httpx.Client(base_url=self.sandbox.urls["sandbox"], trust_env=False, timeout=PATIENCE, verify=False)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        try:
            async with self.sandbox:
                self._ready.set_result(None)
                await self._end.wait()
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    def close(self) -> None:
        self.http.close()
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(PATIENCE)

    def faults(self, spec: str) -> None:
        self.http.put("/_sandbox/faults", content=spec).raise_for_status()

    def options(self, vendor: str = "netease", **switches: Any) -> None:
        self.http.put("/_sandbox/options", json={vendor: switches}).raise_for_status()

    def advance(self, seconds: float) -> None:
        self.http.post("/_sandbox/clock", json={"advance": seconds}).raise_for_status()

    def log(self, call: str = "") -> list[dict[str, Any]]:
        return [one for one in self.http.get("/_sandbox/log").json() if not call or one["call"] == call]

    def objects(self) -> list[StoredObject]:
        """Everything that the vendors store."""
        with closing(open_database(self.sandbox.data)) as database:
            return Objects(self.sandbox.data, database).all()


class Program:
    """One installation: configuration, state, a watched folder, and the commands."""

    def __init__(self, folder: Path, faults: str = "", *, module: str = "dumbwaiter", **arguments: Any) -> None:
        self.folder = folder
        self.cold = module != "dumbwaiter"  # Python is started for each command, and shows its words to others
        self._program = (sys.executable, "-m", module)
        self.data = folder / "vendors"
        self.vendors = Vendors(self.data, faults, **arguments)
        self.drop = self.data / "drop/netease"
        self.state = folder / "state"
        self.mount = self.data / "mount"
        self.config = self.data / "config.toml"
        self.log = folder / "daemon.log"
        self.environment = os.environ | {
            "DUMBWAITER_CONFIG": str(self.config),
            "DUMBWAITER_STATE": str(self.state),
            "DUMBWAITER_CACHE": str(folder / "cache"),
        }
        self.daemon: subprocess.Popen[bytes] | Started | None = None

    def close(self) -> None:
        try:
            self.kill()
        finally:
            self.vendors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    # Commands

    def __call__(
        self,
        *words: str | os.PathLike[str],
        environment: Mapping[str, str] | None = None,
        folder: str | os.PathLike[str] | None = None,
        patience: float = PATIENCE,
    ) -> "subprocess.CompletedProcess[str]":
        with TemporaryFile("w+") as output, TemporaryFile("w+") as errors:
            process = self._begin([*map(os.fspath, words)], environment, output, errors, folder=folder)
            try:
                code = process.wait(patience)
            except BaseException:
                process.kill()
                process.wait()
                raise
            told = []
            for file in (output, errors):
                file.seek(0)
                told.append(file.read())
        return subprocess.CompletedProcess([*self._program, *words], code, *told)

    def _begin(
        self,
        words: list[str],
        environment: Mapping[str, str] | None,
        output: IO[Any],
        errors: IO[Any],
        *,
        folder: str | os.PathLike[str] | None = None,
        prefix: Sequence[str] = (),
    ) -> subprocess.Popen[bytes] | Started:
        environment = self.environment | dict(environment or {})
        with open(os.devnull, "rb") as nothing:
            if not self.cold and not prefix and starter().can(environment):
                return starter().start(words, environment, folder, (nothing, output, errors))
            words = [*(prefix or self._program), *words]
            return subprocess.Popen(words, env=environment, cwd=folder, stdin=nothing, stdout=output, stderr=errors)

    def begin(self, *words: str | os.PathLike[str]) -> "subprocess.Popen[str]":
        """Starts a command and returns it as it runs, its output in pipes."""
        return subprocess.Popen(
            [*self._program, *map(os.fspath, words)],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def facts(self, *words: str | os.PathLike[str]) -> Any:
        """Runs a command with --json and returns what it printed."""
        done = self("--json", *words)
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def start(self, *prefix: str, environment: Mapping[str, str] | None = None) -> None:
        """Starts the daemon and waits until it answers."""
        with open(self.log, "ab") as log:
            self.daemon = self._begin(["-v", "run"], environment, log, log, prefix=prefix)
        self.until(self._answers)

    def _answers(self) -> bool:
        assert self.daemon is not None
        assert self.daemon.poll() is None, self.log.read_text()
        if "DUMBWAITER_STATE" in self.environment:
            return self._asked() is not None
        return self("--json", "status").stdout.startswith('{"running": true')

    def kill(self) -> None:
        if self.daemon is not None:
            self.daemon.kill()
            self.daemon.wait()
            self.daemon = None

    def stop(self) -> int:
        """Ends the daemon as systemd does, and returns its exit code."""
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGTERM)
        code = self.daemon.wait(PATIENCE)
        self.daemon = None
        return code

    def until(self, true: Any, patience: float = PATIENCE) -> None:
        """Waits for another process to have done something that gives no event here."""
        deadline = time.monotonic() + patience
        while True:
            asked = time.monotonic()
            if true():
                return
            now = time.monotonic()
            assert now < deadline, self.log.read_text() if self.log.exists() else "too late"
            time.sleep(max(0.02, now - asked))  # what is waited for wants a processor too

    # Files

    def write(self, name: str, content: bytes) -> Path:
        """Drops a file into the watched folder, whole at once."""
        path = self.drop / name
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.folder / "aside"
        aside.write_bytes(content)
        aside.rename(path)
        return path

    def stored(self) -> dict[str, str]:
        """Returns digest by path of every catalogued file, as the vendor has it."""
        return {
            entry["path"]: digest((self.data / "objects" / entry["facts"]["bucket"] / entry["key"]).read_bytes())
            for entry in self.catalogued()
        }

    def catalogued(self) -> list[dict[str, Any]]:
        """Returns what `ls` tells; the journal is read from here, which costs no start of a command."""
        if not (self.state / "journal.db").exists():
            listed: list[dict[str, Any]] = self.facts("ls")
            return listed
        engine = reading(journal_url(str(self.state)))
        try:
            session: Any = SimpleNamespace(has_journal=True, catalog=Catalog(engine))
            return [entry_facts(file) for _, file in files_below(session, None) if isinstance(file, Entry)]
        finally:
            engine.dispose()

    def objects(self) -> list[str]:
        """Returns the digest of every object that any vendor has."""
        return [digest(path.read_bytes()) for path in (self.data / "objects").rglob("*") if path.is_file()]

    def multiply_jobs(self, count: int) -> None:
        """Gives each job so many copies, of other files, with what is still to be done for it; no daemon may run."""
        with closing(sqlite3.connect(self.state / "journal.db")) as journal, journal:

            def columns(table: str) -> list[str]:
                return [row[1] for row in journal.execute(f"PRAGMA table_info({table})") if row[1] != "id"]

            chosen = [{"name": "CAST('f' || n AS BLOB)", "key": "key || n"}.get(one, one) for one in columns("jobs")]
            journal.execute(
                f"WITH RECURSIVE count(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < {count}) "
                f"INSERT INTO jobs ({','.join(columns('jobs'))}) SELECT {','.join(chosen)} FROM jobs, count"
            )
            chosen = [{"name": "copy.name", "job": "copy.id"}.get(one, f"old.{one}") for one in columns("errands")]
            journal.execute(
                f"INSERT INTO errands ({','.join(columns('errands'))}) SELECT {','.join(chosen)} FROM errands AS old "
                "JOIN jobs AS first ON first.id = old.job JOIN jobs AS copy ON copy.inode = first.inode AND copy.id > first.id"
            )

    def status(self) -> Any:
        """Returns what `status` tells; a daemon is asked from here, which costs no start of a command."""
        return self._asked() or self.facts("status")

    def _asked(self) -> Any:
        with closing(Connection(str(self.state / "run/control.sock"), PATIENCE)) as connection:
            try:
                connection.request("GET", "/status")
                return json.loads(connection.getresponse().read())
            except (OSError, HTTPException):  # there is none, or it is killed at this moment
                return None

    def totals(self) -> dict[str, int]:
        totals: dict[str, int] = self.status()["totals"]
        return totals


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
