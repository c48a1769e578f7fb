"""The mount beside a model of it, under uploads, replacements, refusals and restarts that nobody thought of.

The journal's own transitions write the catalog; a real mount shows it, in each session; after each step all names and
sizes are compared, and the bytes of what has its original.
"""

import asyncio
import os
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from dumbwaiter.errors import Failure
from dumbwaiter.journal import Journal
from dumbwaiter.model import Receipt, Stamp
from dumbwaiter.naming import key_path
from dumbwaiter.store.arrivals import Candidate
from dumbwaiter.store.database import journal_url, reading, writing
from dumbwaiter.store.writer import Writer
from dumbwaiter_fs import mount_point
from fs.world import Mounted, Shelf, until
from starter import starter

pytestmark = pytest.mark.fuse

PATHS = ("a", "A", "b%", "d/a", "d/e/f", "caf\u00e9", "cafe\u0301", "d/not utf-8 \udcff")
KEYS = ("k", "k/x", "k%", "K", "x//y", "/lead", "trail/", "..", "n" * 300, "\x1b")
Held = dict[str, Any]


def shown(names: dict[str, int]) -> dict[str, int]:
    """Returns paths as the mount shows them: a file that a folder pushes aside takes the first free name."""
    folders = {path[:at] for path in names for at, letter in enumerate(path) if letter == "/"}
    result = {}
    for path, size in names.items():
        name = path
        if path in folders:
            name += "%"
            while name in folders or name in names:
                name += "%"
        result[name] = size
    return result


def walked(top: str) -> dict[str, int]:
    found = {}
    for folder, _, names in os.walk(top, onerror=_fail):
        for name in names:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, top)] = os.stat(path).st_size
    return found


def _fail(error: OSError) -> None:
    raise error


class Machine(RuleBasedStateMachine):
    session = ""
    folder: Any = None
    made = 0

    def __init__(self) -> None:
        super().__init__()
        Machine.made += 1
        os.mkdir(root := os.path.join(os.path.realpath(self.folder), str(Machine.made)))
        self.shelf = Shelf(root)
        self.shelf.choose(self.session)
        self.loop = asyncio.new_event_loop()
        self.now = 1_700_000_000.0
        self.size = 0
        self.jobs: dict[int, Held] = {}  # those that are not done
        self.at_work: list[int] = []
        self.versions: defaultdict[str, set[int]] = defaultdict(set)  # jobs of a file that are or were wanted
        self.done: dict[str, int] = {}  # the newest job of a file that ended well
        self.entries: list[Held] = []
        self._open()
        self.mounted = Mounted(self.shelf, starter=starter()).wait()

    def _open(self) -> None:
        url = journal_url(self.shelf.state)
        self.writer, self.reader = Writer(writing(url)), reading(url)
        self.journal = Journal(self.writer, "h", self.reader)

    def _close(self) -> None:
        self.writer.close()
        self.reader.dispose()

    def _do(self, work: Any) -> Any:
        self.now += 1
        return self.loop.run_until_complete(work)

    @rule(path=st.sampled_from(PATHS))
    def write(self, path: str) -> None:
        """A file is dropped, or another version of it."""
        self.size += 1
        stamp = self.shelf.write(os.fsencode(path), b"x" * self.size)
        (number,) = self._do(self.journal.arrivals.enqueue([Candidate("w", path, "p", stamp)], self.now))
        for other, job in list(self.jobs.items()):
            if job["path"] == path and other not in self.at_work:
                del self.jobs[other]
                self.versions[path].discard(other)
        self.versions[path].add(number)
        self.jobs[number] = {"path": path, "stamp": stamp, "refused": False}
        self._compare()

    @rule()
    def claim(self) -> None:
        self.at_work += [job.id for job in self._do(self.journal.claim("me", self.now, 2))]

    @rule(data=st.data(), key=st.sampled_from(KEYS))
    def upload(self, data: st.DataObject, key: str) -> None:
        """A job that is worked on ends well; it may find other content under its key."""
        if not self.at_work:
            return
        number = self.at_work.pop(data.draw(st.integers(0, len(self.at_work) - 1)))
        job = self.jobs.pop(number)
        digest = f"xxh3:{job['stamp'].size}"
        receipt = Receipt(key=key)
        self._do(self.journal.lease("me", number).name(self.now, key=key, grant=None))
        self.journal.lease("me", number).store(self.now, receipt=receipt, digest=digest, more=1, resent=0).result()
        self._do(self.journal.lease("me", number).finish(self.now, receipt=receipt))
        path = job["path"]
        newest = number > self.done.get(path, 0)
        if newest:
            self.done[path] = number
            for entry in self.entries:
                entry["current"] = entry["current"] and entry["path"] != path
        if newest or not any((entry["path"], entry["key"]) == (path, key) for entry in self.entries):
            kept = [entry for entry in self.entries if entry["key"] != key]
            self.entries = [*kept, {"path": path, "stamp": job["stamp"], "key": key, "current": newest}]
        self._compare()

    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        if self.at_work:
            number = self.at_work.pop(data.draw(st.integers(0, len(self.at_work) - 1)))
            needed = self._do(self.journal.lease("me", number).reject(self.now, error="too large"))
            path = self.jobs[number]["path"]
            assert needed == (number >= max(self.versions[path]))
            if not needed:  # there is a newer version of the file, so nobody has to see to this one
                self.versions[path].discard(number)
                del self.jobs[number]
            self._compare()

    @rule()
    def retry(self) -> None:
        self._do(self.journal.queue.retry(None, self.now))
        self._compare()

    @rule()
    def forget(self) -> None:
        waiting = [number for number in self.jobs if number not in self.at_work]
        if waiting:
            self._do(self.journal.queue.forget(waiting[:1], self.now))
            self.versions[self.jobs.pop(waiting[0])["path"]].discard(waiting[0])
            self._compare()

    @rule()
    def restart(self) -> None:
        """The daemon goes and comes; the mount does not notice."""
        self._close()
        self._open()
        self._do(self.journal.release_all())
        self.at_work.clear()
        self._compare()

    @rule()
    def crash(self) -> None:
        """The mount's process is killed; the next one clears the dead mount away."""
        self.mounted.process.kill()
        self.mounted.process.wait()
        self.mounted.close()
        with pytest.raises(Failure, match="is a mount whose process was killed"):
            mount_point.prepare(mount_point.resolved(self.shelf.mount), look_only=True)
        self.mounted = Mounted(self.shelf, starter=starter())
        self.mounted.wait()
        self._compare()

    def _expected(self) -> dict[str, dict[str, int]]:
        newest = {job["path"]: job for _, job in sorted(self.jobs.items())}
        local = {path: os.stat(self.shelf.local(path)).st_size for path in newest}
        return {
            "outbox/w": shown(local),
            "files/w": shown({entry["path"]: entry["stamp"].size for entry in self.entries if entry["current"]}),
            "keys/p": shown({key_path(entry["key"]): entry["stamp"].size for entry in self.entries}),
        }

    def _compare(self) -> None:
        expected = self._expected()

        def found() -> dict[str, dict[str, int]]:
            return {top: walked(at) if os.path.isdir(at := self.mounted.at(top)) else {} for top in expected}

        last: dict[str, dict[str, int]] = {}

        def same() -> bool:
            nonlocal last
            try:
                last = found()
            except OSError:  # a name of the last moment
                return False
            return last == expected

        try:
            until(same, 6)
        except AssertionError:
            assert last == expected
        for entry in self.entries:
            if entry["current"] and Stamp.of(os.stat(self.shelf.local(entry["path"]))) == entry["stamp"]:
                names = shown({one["path"]: 0 for one in self.entries if one["current"]})
                if entry["path"] in names:
                    assert self.mounted.read("files/w", entry["path"]) == b"x" * entry["stamp"].size
                    assert os.getxattr(self.mounted.at("files/w", entry["path"]), "user.dumbwaiter.key") == entry[
                        "key"
                    ].encode("utf-8", "surrogateescape")

    def teardown(self) -> None:
        self._close()
        self.loop.close()
        self.mounted.clear()
        self.shelf.close()


@pytest.mark.parametrize("session", ["fast", "fusepy"])
@pytest.mark.parametrize("examples", [3, pytest.param(40, marks=[pytest.mark.torture, pytest.mark.timeout(900)])])
def test_the_mount_shows_what_a_model_of_it_says(session: str, examples: int, tmp_path: Any) -> None:
    machine = type("Of", (Machine,), {"session": session, "folder": tmp_path})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=12,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
