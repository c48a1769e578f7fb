"""Many programs at once, a provider that fails: everybody gets the bytes or an errno, and what costs nothing stays free."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dumbwaiter_fs.cache import BLOCK
from fs.world import Mounted, Origin, Shelf, until

pytestmark = pytest.mark.fuse
torture = pytest.mark.torture

Mount = Callable[..., Mounted]
BODY = random.Random(6).randbytes(3_000_017)

# Compares random reads, by descriptor and by mapping, with the original bytes; ends with what was wrong.
EXERCISER = """import mmap, os, random, sys
path, reference, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
chance, right = random.Random(seed), open(reference, "rb").read()
for turn in range(4):
    with open(path, "rb", buffering=0) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        for _ in range(40):
            offset, size = chance.randrange(len(right) + 5000), chance.choice([1, 511, 4096, 70_000, 300_001])
            got = mapped[offset:offset + size] if chance.random() < 0.3 else os.pread(file.fileno(), size, offset)
            if got != right[offset:offset + size]:
                sys.exit(f"turn {turn}: {size} bytes at {offset} are others")
        assert os.fstat(file.fileno()).st_size == len(right)
"""
# Walks, stats and reads everything; prints how many files it got whole and how many with an errno.
WALKER = """import errno, os, random, sys
top, reference, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
whole = failed = 0
for turn in range(3):
    for root, folders, names in os.walk(top, onerror=lambda error: sys.exit(f"listing: {error}")):
        random.Random(seed * 10 + turn).shuffle(names)
        for name in names:
            path = os.path.join(root, name)
            with open(os.path.join(reference, name), "rb") as file:
                right = file.read()
            assert os.stat(path).st_size == len(right), "stat"
            try:
                with open(path, "rb") as file:
                    got = file.read()
            except OSError as error:
                failed += 1
                if error.errno not in (errno.EIO, errno.EHOSTUNREACH, errno.ETIMEDOUT):
                    sys.exit(f"{name}: {error}")
            else:
                whole += 1
                if got != right:
                    sys.exit(f"{name}: other bytes, {len(got)} of {len(right)}")
print(whole, failed)
"""


def programs(count: int, text: str, *words: str) -> list[str]:
    """Runs one program several times at once, with a seed each, and returns what they printed."""
    running = [
        subprocess.Popen([sys.executable, "-c", text, *words, str(seed)], stdout=-1, stderr=-1, text=True)
        for seed in range(count)
    ]
    ended = [(program.communicate(timeout=100), program.returncode) for program in running]
    assert [(said, code) for (_, said), code in ended] == [("", 0)] * count
    return [out for (out, _), _ in ended]


@pytest.mark.parametrize(
    "faults", [{}, pytest.param({"cut_after": 150_000}, marks=torture), pytest.param({"ranges": False}, marks=torture)]
)
def test_random_reads_of_several_programs_are_the_original_bytes(
    shelf: Shelf, mount: Mount, origin: Origin, tmp_path: Path, faults: dict[str, int]
) -> None:
    shelf.entry("a", len(BODY), url=origin.put("a", BODY, **faults))
    (tmp_path / "reference").write_bytes(BODY)
    programs(4, EXERCISER, mount().at("files/w/a"), str(tmp_path / "reference"))


def test_random_reads_survive_a_cache_that_is_damaged_meanwhile(
    shelf: Shelf, mount: Mount, origin: Origin, tmp_path: Path
) -> None:
    shelf.entry("a", len(BODY), url=origin.put("a", BODY))
    (tmp_path / "reference").write_bytes(BODY)
    mounted = mount()
    assert mounted.read("files/w/a") == BODY
    mounted.stop()
    blocks = sorted(path for path in Path(shelf.root, "cache/blocks").rglob("*") if path.is_file())
    assert len(blocks) == -(-len(BODY) // BLOCK)
    for number, path in enumerate(blocks):
        match number % 4:
            case 0:
                path.write_bytes(path.read_bytes()[:-1] + b"?")
            case 1:
                os.truncate(path, 1000)
            case 2:
                path.unlink()
    programs(4, EXERCISER, mount().at("files/w/a"), str(tmp_path / "reference"))


@pytest.mark.parametrize("down", ["drop", pytest.param(500, marks=torture)])
def test_a_storm_while_the_network_is_away_brings_no_wrong_byte(
    shelf: Shelf, mount: Mount, origin: Origin, tmp_path: Path, down: str | int
) -> None:
    for number in range(24):
        name, body = f"{number:02}", BODY[number * 1000 :][: 30_000 * (number + 1)]
        (tmp_path / "reference").mkdir(exist_ok=True)
        (tmp_path / "reference" / name).write_bytes(body)
        shelf.entry(f"d{number % 3}/{name}", len(body), key=name, url=origin.put(name, body))
    origin.away, origin.away_as = range(6, 60), down
    mounted = mount(deadline=5.0)
    words = [line.split() for line in programs(8, WALKER, mounted.at("files/w"), str(tmp_path / "reference"))]
    whole, failed = (sum(int(pair[turn]) for pair in words) for turn in (0, 1))
    assert whole > 0
    assert failed > 0, "the network was away"
    origin.away = range(0)
    for number in range(24):
        name = f"{number:02}"
        assert mounted.read("keys/p", name) == (tmp_path / "reference" / name).read_bytes()


def test_a_reader_of_a_silent_server_can_be_killed(shelf: Shelf, mount: Mount, origin: Origin) -> None:
    shelf.entry("a", len(BODY), url=origin.put("a", b"", hang=True))
    mounted = mount(deadline=60.0)  # longer than this test may last
    reader = subprocess.Popen(["cat", mounted.at("files/w/a")])
    until(lambda: origin.requests)
    reader.send_signal(signal.SIGKILL)
    assert reader.wait(5) == -signal.SIGKILL
    assert sorted(os.listdir(mounted.path)) == ["files", "keys", "outbox"]


@torture
def test_a_thousand_originals_are_probed_without_a_request(shelf: Shelf, mount: Mount, origin: Origin) -> None:
    for number in range(1000):
        name = f"{number % 10}/{number:04}.jpg"
        body = name.encode() * 600
        shelf.entry(name, shelf.write(name, body), url=origin.put(name, body))
    root = mount().at("files/w")
    for line in ("ls -lR .", "find . -size +1k", "du -a .", "getfattr -d -R .", "find . -exec head -c 4096 -q {} +"):
        done = subprocess.run(line.split(), cwd=root, capture_output=True)
        assert done.stdout.count(b"\n") >= 1000 or line.startswith("find . -exec"), line
    assert origin.requests == []


def test_a_look_at_the_beginning_costs_one_block(shelf: Shelf, mount: Mount, origin: Origin) -> None:
    for number in range(20):
        shelf.entry(f"{number}", len(BODY), url=origin.put(f"{number}", BODY))
    mounted = mount()
    for number in range(20):
        subprocess.run(["head", "-c", "4096", mounted.at(f"files/w/{number}")], stdout=subprocess.DEVNULL, check=True)
    assert sorted(origin.requests) == sorted((f"/{number}", f"bytes=0-{BLOCK - 1}") for number in range(20))
