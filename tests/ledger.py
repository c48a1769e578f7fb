"""How a test of the whole program judges: who wrote what, and whether it is at the providers as it was written.

The writer notes the digest of each version before it writes it. What is complained of, in sentences: a file that stood still
and is not at its provider byte for byte, an object that never was a version of a file, a catalog that disagrees with
the jobs, a lease or a secret left behind.
"""

import base64
import os
import random
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from program import Program, digest

KIB, MIB = 1 << 10, 1 << 20
JPEG = bytes.fromhex("ffd8ffe000104a46494600010100000100010000"), bytes.fromhex("ffd9")
# The largest file that each provider of the sandbox is given, and whether it takes an empty one.
PROVIDERS: dict[str, tuple[int, bool]] = {
    "netease": (64 * MIB, True),
    "jiandaoyun": (24 * MIB, False),
    "recipe": (24 * MIB, True),
    "jimeng": (24 * MIB, False),
    "dreamina": (24 * MIB, False),
    "careyshop": (2 * MIB - KIB, True),
    "careyshop-qiniu": (2 * MIB - KIB, True),
    "careyshop-aliyun": (2 * MIB - KIB, True),
    "careyshop-sts": (64 * MIB, True),
    "xinhua": (MIB - KIB, False),
}
MADE = ("watermark/", "unwatermark/")  # what Xinhua made of a picture


class Ledger:
    """Writes files into the watched folders and knows what must come of them."""

    def __init__(self, program: Program, seed: object) -> None:
        self.program = program
        self.numbers = random.Random(str(seed))
        self.versions: set[str] = set()
        self.standing: dict[str, str] = {}  # "WATCH/PATH" -> digest
        self._count = 0

    # Writing

    def path(self, place: str) -> Path:
        return self.program.data / "drop" / place

    def new(self, provider: str, size_max: int = MIB) -> str:
        """Drops a new file and returns its place."""
        self._count += 1
        suffix = "jpg" if provider == "xinhua" else "bin"
        place = f"{provider}/{self.numbers.choice(['', 'a/', 'a/b/', 'ü x/'])}{self._count:04}.{suffix}"
        self.write(place, self.content(provider, size_max))
        return place

    def content(self, provider: str, size_max: int) -> bytes:
        """Returns bytes that no other file has, of a size at which something may go wrong."""
        most, empty = PROVIDERS[provider]
        sizes = [
            0 if empty else 1, 1, 100, 5_000, 70_000, 300_000, MIB, MIB + 1,
            4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 9 * MIB, 20 * MIB, 64 * MIB,
        ]  # fmt: skip
        length = self.numbers.choice([size for size in sizes if size <= min(most, size_max)])
        body = self.numbers.randbytes(length)
        return body if provider != "xinhua" else JPEG[0] + body + JPEG[1]

    def write(self, place: str, content: bytes, *, whole: bool = True) -> None:
        """Writes a version: whole at once, or in place, piece by piece."""
        self.note(place, content)
        path = self.path(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        if whole:
            aside = self.program.folder / "aside"
            aside.write_bytes(content)
            aside.rename(path)
        else:
            with open(path, "wb", buffering=0) as file:
                file.writelines(content[start : start + MIB] for start in range(0, len(content), MIB))

    def append(self, place: str, more: bytes) -> None:
        with open(self.path(place), "ab", buffering=0) as file:
            self.note(place, self.path(place).read_bytes() + more)
            file.write(more)

    def rename(self, place: str) -> None:
        provider, _, rest = place.partition("/")
        self._count += 1
        to = f"{provider}/moved/{self._count:04} {rest.rpartition('/')[2]}"
        self.path(to).parent.mkdir(exist_ok=True)
        self.standing[to] = self.standing.pop(place)
        self.path(place).rename(self.path(to))

    def delete(self, place: str) -> None:
        del self.standing[place]
        self.path(place).unlink()

    def note(self, place: str, content: bytes) -> None:
        """Takes down what a place is to hold from now on."""
        self.standing[place] = digest(content)
        self.versions.add(self.standing[place])

    # Judging

    def complaints(self) -> list[str]:
        """Returns what does not hold, once all is quiet."""
        return [*self._of_files(), *self._of_objects(), *self._of_the_journal()]

    def at_the_providers(self) -> dict[str, str]:
        """Returns digest by place of every catalogued file, as its vendor has it."""
        stored = self.program.vendors.http.get("/_sandbox/objects").json()
        where = {one["key"]: Path(one["bucket"]) / one["key"] for one in stored}
        found = {}
        for entry in self.program.catalogued():
            object_ = where.get(entry["key"])
            path = self.program.data / "objects" / object_ if object_ else None
            place = f"{entry['watch']}/{entry['path']}"
            found[place] = digest(path.read_bytes()) if path and path.exists() else "no object"
        return found

    def _of_files(self) -> Iterator[str]:
        found = self.at_the_providers()
        for place, wanted in self.standing.items():
            if found.get(place) != wanted:
                yield f"{place} is not at its provider as it stands: {self._story(place)}"

    def _story(self, place: str) -> str:
        watch, _, path = place.partition("/")
        parent, _, name = path.rpartition("/")
        with self._journal() as journal:
            rows = journal.execute(
                "SELECT id, state, size, attempts, error FROM jobs WHERE parent = ? AND name = ? ORDER BY id",
                ("/".join(filter(None, (watch, parent))).encode(), name.encode()),
            ).fetchall()
        return f"{self.path(place).stat().st_size} bytes, jobs {rows}"

    def _of_objects(self) -> Iterator[str]:
        objects = self.program.data / "objects"
        for path in objects.rglob("*"):
            key = path.relative_to(objects).as_posix().partition("/")[2]
            if path.is_file() and not key.startswith(MADE) and digest(path.read_bytes()) not in self.versions:
                yield f"{path.relative_to(objects)} never was a version of a file"

    def _of_the_journal(self) -> Iterator[str]:
        with self._journal() as journal:
            if (verdict := journal.execute("PRAGMA quick_check").fetchone()) != ("ok",):
                yield f"the journal is damaged: {verdict}"
            for (count,) in journal.execute("SELECT count(*) FROM jobs WHERE state IN ('pending', 'stored')"):
                if count:
                    yield f"{count} jobs are still open"
            done = "SELECT provider, key, parent, name FROM jobs WHERE state = 'done'"
            listed = "SELECT provider, key, parent, name FROM entries WHERE watch != ''"
            results = " AND key NOT LIKE 'watermark/%' AND key NOT LIKE 'unwatermark/%'"
            for row in journal.execute(f"{done} EXCEPT {listed}"):
                yield f"a done job has no entry: {row}"
            for row in journal.execute(f"{listed}{results} EXCEPT {done}"):
                yield f"an entry has no done job: {row}"
            for row in journal.execute(
                "SELECT provider, parent, name FROM jobs WHERE state = 'rejected' AND error IS NULL"
            ):
                yield f"rejected without a reason: {row}"
            for row in journal.execute("SELECT id FROM jobs WHERE state NOT IN ('pending') AND \"grant\" IS NOT NULL"):
                yield f"job {row[0]} has ended and its session ticket is still there"

    def _journal(self) -> "closing[sqlite3.Connection]":
        return closing(sqlite3.connect(f"file:{self.program.state}/journal.db?mode=ro", uri=True, timeout=30))


def leases(program: Program) -> int:
    """Returns how many jobs somebody works on; none once the daemon has stopped."""
    with closing(sqlite3.connect(f"file:{program.state}/journal.db?mode=ro", uri=True)) as journal:
        count: int = journal.execute("SELECT count(*) FROM jobs WHERE lease IS NOT NULL").fetchone()[0]
    return count


# Secrets

SECRET = ("secret", "password", "api_key", "session", "auth_key")


def secrets(program: Program) -> list[str]:
    """Returns the secrets of every account in the configuration of the sandbox."""
    return sorted(
        {
            value
            for account in program.vendors.sandbox.accounts.values()
            for name, value in account.items()
            if any(word in name for word in SECRET)
        }
    )


def forms(secret: str) -> set[bytes]:
    """Returns what a secret may look like in a file: as it is, in a URL, and in base64 at any place."""
    raw = secret.encode()
    found = {raw, quote(secret, safe="").encode(), raw.hex().encode()}
    for before in range(3):
        # The letters at both ends depend on what stands beside.
        whole = base64.b64encode(bytes(before) + raw)
        body = whole[-(-before * 4 // 3) : len(whole.rstrip(b"=")) - 1]
        found |= {body, body.replace(b"+", b"-").replace(b"/", b"_")}
    return found


def leaks(wanted: Iterable[str], places: Iterable[Path]) -> list[str]:
    """Returns in which files one of these secrets stands, in any form."""
    patterns = {form: secret for secret in wanted for form in forms(secret)}
    found = []
    for place in places:
        for path in [place] if place.is_file() else place.rglob("*"):
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                found += [f"{secret[:4]}… in {path}" for form, secret in patterns.items() if form in content]
    return found


def told_to_others(pid: int) -> list[Path]:
    """Returns the files by which a process shows itself to others of its user."""
    return [Path(f"/proc/{pid}/{name}") for name in ("cmdline", "environ", "comm")]


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def status(pid: int, what: str) -> int:
    """Returns a number from /proc: VmRSS and VmHWM in MiB, Threads as they are counted."""
    text = Path(f"/proc/{pid}/status").read_text()
    number = int(text.partition(f"{what}:")[2].split()[0])
    return number // 1024 if what.startswith("Vm") else number
