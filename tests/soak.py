"""All ten providers under a random writer, random faults, kills and ageing tokens, for as long as one likes.

`make soak SECONDS=600`, or `python tests/soak.py --seconds 600 --seed 7`: a seed makes the same choices again, though not at
the same moments. The last third has no kills, so that what one daemon gathers in memory shows. At the end the faults are
taken away, and everything that `ledger` asks for must hold; the exit code is 1 if it does not.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import ledger as judge
from ledger import MIB, PROVIDERS, Ledger
from program import Program

GENERAL = ("cut", "cut-within", "cut-after", "cut-reply", "html", "empty", "500", "502", "503", "429", "403", "404")
# An object that nobody else can have named is said to be there; and an empty answer is how many servers say "stored".
LIES = {"*:exists", "presign.put:empty"}
WAL_MAX = 16 * MIB
GROWTH_MAX = 32  # MiB of memory, from the first quarter of the last life to its end
DESCRIPTORS_MAX = 40  # more than an idle daemon has at its start: readers of the journal, connections to token services
RESTING = 150.0  # seconds until upload connections that nobody uses are closed, and some
DRAIN = 100.0, 420.0  # seconds that the end may take once the faults are gone, without stalls and with them

# A daemon that says, when asked by a signal, what its loop is busy with.
TELLING = """
import asyncio, os, signal
def tell(*_):
    names = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]
    with open(os.environ["SOAK_TASKS"] + ".new", "w") as file:
        file.write("\\n".join(names))
    os.rename(file.name, os.environ["SOAK_TASKS"])
signal.signal(signal.SIGUSR2, tell)
from dumbwaiter.cli import main
main()
"""


class Soak:
    """One run in one folder."""

    def __init__(self, folder: Path, seed: int, *, stalls: bool = True, size_max: int = 9 * MIB) -> None:
        self.program = Program(folder)
        self.program.cold = True
        self.numbers = random.Random(seed)
        self.ledger = Ledger(self.program, f"files of {seed}")
        self.tasks = folder / "tasks"
        self.did: Counter[str] = Counter()
        self.rejections: Counter[str] = Counter()
        self.complaints: list[str] = []
        self.memory: list[tuple[float, int]] = []  # of this life
        self.wal = 0
        self._stalls = stalls  # a minute each
        self._patience = DRAIN[stalls]
        self._open_max = (
            DESCRIPTORS_MAX if stalls else 2 * DESCRIPTORS_MAX
        )  # a short one does not wait two minutes for it
        self._size_max = size_max
        self._catalogue = self.program.vendors.sandbox._catalogue

    def run(self, seconds: float) -> None:
        self.start()
        idle = judge.descriptors(self._pid)
        begun = time.monotonic()
        while (elapsed := time.monotonic() - begun) < seconds:
            self.step(calm=elapsed > seconds * 2 / 3)
        self.end(idle)

    def start(self) -> None:
        environment = {"SOAK_TASKS": str(self.tasks)}
        self.program.start(sys.executable, "-c", TELLING, environment=environment)
        self.memory = []

    @property
    def _pid(self) -> int:
        assert self.program.daemon is not None
        return self.program.daemon.pid

    # The storm

    def step(self, *, calm: bool) -> None:
        """Does one thing to the files, and now and then one to the daemon or its vendors."""
        chance = self.numbers.random
        self._touch_a_file()
        if chance() < 0.06:
            self.did["weather"] += 1
            self.program.vendors.faults(self.weather())
        if chance() < 0.01:
            self.did["aged"] += 1
            self.program.vendors.advance(self.numbers.choice([70, 400, 1900, 4000, 90_000]))
        if chance() < 0.01:
            self.did["person"] += 1
            self.program("retry", "--all")
        if chance() < 0.025 and not calm:
            self._end_the_daemon()
        self._sample()
        time.sleep(self.numbers.choice([0, 0.02, 0.2, 0.5]))

    def _touch_a_file(self) -> None:
        held = self.ledger
        what = self.numbers.choices(
            ["new", "burst", "replace", "rewrite", "append", "rename", "delete"], [8, 1, 3, 3, 2, 1, 1]
        )[0]
        place = self.numbers.choice(sorted(held.standing)) if held.standing else ""
        provider = place.partition("/")[0]
        if what == "append" and (provider == "xinhua" or not place or held.path(place).stat().st_size > MIB):
            what = "new"
        self.did[what] += 1
        if what in {"new", "burst"} or not place:
            for _ in range(20 if what == "burst" else 1):
                held.new(self.numbers.choice(sorted(PROVIDERS)), 70_000 if what == "burst" else self._size_max)
        elif what in {"replace", "rewrite"}:
            held.write(place, held.content(provider, self._size_max), whole=what == "replace")
        elif what == "append":
            held.append(place, self.numbers.randbytes(self.numbers.choice([1, 1000, 200_000])))
        elif what == "rename":
            held.rename(place)
        else:
            held.delete(place)

    def weather(self) -> str:
        """Returns a random list of faults."""
        numbers, rules = self.numbers, [f"seed={self.numbers.randrange(10**6)}"]
        calls = sorted(self._catalogue.calls)
        for _ in range(numbers.choice([0, 2, 4, 8, 12])):
            percent = numbers.choice([2, 10, 40])
            kind = numbers.random()
            if kind < 0.6:
                rule = f"{numbers.choice(calls)}:{numbers.choice(GENERAL)}"
                if rule not in LIES:
                    rules.append(f"{rule}%{percent}")
            elif kind < 0.9:
                fault = numbers.choice(sorted(self._catalogue.special))
                call = numbers.choice(sorted(self._catalogue.special[fault]))
                if f"*:{fault}" not in LIES:
                    rules.append(f"{call}:{fault.replace('NNN', numbers.choice(['500', '700', '1005']))}%{percent}")
            elif kind < 0.95 and self._stalls:
                rules.append(f"{numbers.choice(calls)}:stall@{numbers.randint(1, 20)}")
            elif kind < 0.98:
                rules.append(f"{numbers.choice(calls).partition('.')[0]}.*:down")
            else:
                rules.append("*:down")
        if numbers.random() < 0.3:
            rules.append(f"latency={numbers.choice([5, 30, 100])}ms")
        return ",".join(rules)

    def _end_the_daemon(self) -> None:
        if self.numbers.random() < 0.75:
            self.did["killed"] += 1
            self.program.kill()
        else:
            self.did["stopped"] += 1
            self._stop()
        self.start()

    def _stop(self) -> None:
        begun = time.monotonic()
        code = self.program.stop()
        if code != 0 or time.monotonic() - begun > 10:
            self.complaints.append(f"a stop took {time.monotonic() - begun:.1f} s and ended with {code}")

    def _sample(self) -> None:
        if self.program.daemon is not None and self.program.daemon.poll() is not None:
            self.complaints.append(f"the daemon ended by itself with {self.program.daemon.returncode}")
            self.start()
        self.memory.append((time.monotonic(), judge.status(self._pid, "VmRSS")))
        log = self.program.state / "journal.db-wal"
        self.wal = max(self.wal, log.stat().st_size if log.exists() else 0)

    # The end

    def end(self, idle: int) -> None:
        """Takes the faults away, lets everything come to rest, and judges."""
        program = self.program
        growth = self._growth()
        program.vendors.faults("")
        self._drain()
        for job in program.status()["jobs"]:
            if job["state"] == "rejected":
                self.rejections[f"{job['provider']}: {job['error']}"] += 1
        program("retry", "--all")
        self._drain()
        self._settle_down(idle)
        if growth > GROWTH_MAX:
            self.complaints.append(f"memory grew by {growth} MiB")
        if self.wal > WAL_MAX:
            self.complaints.append(f"the write-ahead log was {self.wal // MIB} MiB")
        self.totals = program.totals()
        shown = judge.leaks(judge.secrets(program), judge.told_to_others(self._pid))
        self._stop()
        if count := judge.leases(program):
            self.complaints.append(f"{count} leases are left")
        self.complaints += self.ledger.complaints()
        self.complaints += shown
        self.complaints += judge.leaks(judge.secrets(program), [program.state, program.folder / "cache", program.log])
        if "Traceback" in (text := program.log.read_text(errors="replace")):
            self.complaints.append("a traceback: " + text[text.index("Traceback") :][:2000])

    def _drain(self) -> None:
        deadline = time.monotonic() + self._patience
        hastened: set[int] = set()
        while True:
            facts = self.program.status()
            if not facts["settling"] and not any(facts["totals"][state] for state in ("pending", "stored")):
                return
            if time.monotonic() > deadline:
                busy = f"{_waiting(facts)}; settling {facts['settling']}; tasks {self._busy_with()}"
                self.complaints.append(f"not at rest after {self._patience:.0f} s: {busy}")
                return
            # A back-off may be five minutes; a person does not wait for it. What is stored counts its questions to the
            # vendor, and would count them anew each time.
            open_ = {
                job["id"]: job["state"] for job in facts["jobs"] if job["state"] != "rejected" and not job["active"]
            }
            if waiting := [id_ for id_, state in open_.items() if state == "pending" or id_ not in hastened]:
                self.program("retry", *map(str, waiting))
                hastened |= set(waiting)
            time.sleep(2)

    def _settle_down(self, idle: int) -> None:
        """Nothing that belongs to work may be left when there is none."""
        deadline = time.monotonic() + RESTING
        while True:
            tasks = self._busy_with()
            busy = {name: count for name, count in tasks.items() if "Attempt" in name or count > 8}
            open_now = judge.descriptors(self._pid)
            if not busy and open_now <= idle + self._open_max:
                return
            if time.monotonic() > deadline:
                self.complaints.append(
                    f"left when all was quiet: {open_now} descriptors ({idle} at first), tasks {busy}"
                )
                return
            time.sleep(1)

    def _busy_with(self) -> Counter[str]:
        """Returns how many tasks of each kind the daemon's loop has."""
        self.tasks.unlink(missing_ok=True)
        os.kill(self._pid, signal.SIGUSR2)
        self.program.until(self.tasks.exists)
        return Counter(self.tasks.read_text().split("\n"))

    def _growth(self) -> int:
        quarter = self.memory[len(self.memory) // 4 :]
        return quarter[-1][1] - quarter[0][1] if quarter else 0

    def summary(self) -> str:
        facts: dict[str, Any] = {
            "did": dict(self.did),
            "totals": self.totals,
            "requests": self.program.vendors.sandbox.world.log.total,
            "versions": len(self.ledger.versions),
            "standing": len(self.ledger.standing),
            "wal MiB": round(self.wal / MIB, 1),
            "memory MiB": [self.memory[len(self.memory) // 4][1], self.memory[-1][1]] if self.memory else None,
            "rejected until a person's retry": dict(self.rejections),
        }
        return json.dumps(facts, indent=2, ensure_ascii=False)


def _waiting(facts: dict[str, Any]) -> str:
    jobs = [f"{job['provider']} {job['path']} {job['state']}: {job['error']}" for job in facts["jobs"]]
    providers = [f"{one['name']} is {one['state']}" for one in facts["providers"] if one["state"] != "ready"]
    return "; ".join([*jobs[:5], *providers])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="of storm; the end comes on top (600)")
    parser.add_argument("--seed", type=int, default=None, help="of an earlier run, to make its choices again")
    parser.add_argument("--keep", type=Path, help="folder to work in and to leave behind")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}", flush=True)
    folder = options.keep or Path(tempfile.mkdtemp(prefix="dumbwaiter-soak-"))
    folder.mkdir(exist_ok=True, parents=True)
    soak = Soak(folder, seed)
    try:
        soak.run(options.seconds)
    finally:
        soak.program.close()
    print(soak.summary())
    for complaint in soak.complaints:
        print(f"FAILED: {complaint}")
    print(f"seed {seed}: {len(soak.complaints)} complaints" + (f", all of it in {folder}" if soak.complaints else ""))
    if not soak.complaints and not options.keep:
        shutil.rmtree(folder)
    return 1 if soak.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
