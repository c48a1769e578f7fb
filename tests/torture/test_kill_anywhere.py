"""T01 and T29: kills, faults and ageing tokens at random moments, over every provider; judged by `ledger`."""

import random
import time
from pathlib import Path

import pytest

import ledger as judge
from ledger import KIB, MIB, PROVIDERS, Ledger
from program import Program
from soak import Soak

IN_FLIGHT = 4 * 4 * MIB  # parts of one file on their way at one moment, times their size


@pytest.mark.parametrize(
    ("files", "kills", "size_max"),
    [
        pytest.param(30, 3, 5 * MIB),
        pytest.param(300, 200, 64 * MIB, marks=[pytest.mark.torture, pytest.mark.timeout(1800)]),
    ],
)
def test_t01_a_kill_anywhere_loses_nothing_mixes_nothing_and_doubles_nothing(
    program: Program, files: int, kills: int, size_max: int
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")  # shown when it fails
    numbers, book = random.Random(seed), Ledger(program, seed)
    for turn in range(files):
        book.new(sorted(PROVIDERS)[turn % len(PROVIDERS)], size_max if turn % 5 == 0 else 300 * KIB)
    program.vendors.faults("latency=20ms")
    log = program.vendors.sandbox.world.log
    for _ in range(kills):
        program.start()
        mark, until = log.total + numbers.randrange(1, max(2, 8 * files // kills)), time.monotonic() + 3
        program.until(lambda mark=mark, until=until: log.total >= mark or time.monotonic() > until)
        program.kill()
    program.vendors.faults("")
    program.start()
    assert program("wait", "--timeout", "10m", patience=700).returncode == 0
    totals = program.totals()
    assert program.stop() == 0
    assert book.complaints() == []
    assert judge.leases(program) == 0
    assert judge.leaks(judge.secrets(program), [program.state, program.log]) == []
    assert (totals["done"], totals["rejected"]) == (files, 0)
    assert totals["bytes_resent"] <= kills * 4 * IN_FLIGHT


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(8, marks=pytest.mark.timeout(400)),
        pytest.param(1800, marks=[pytest.mark.torture, pytest.mark.timeout(3600)]),
    ],
)
def test_t29_a_storm_of_faults_kills_and_old_tokens_leaves_everything_in_order(tmp_path: Path, seconds: int) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")  # shown when it fails
    long = seconds > 60
    soak = Soak(tmp_path, seed, stalls=long, size_max=9 * MIB if long else MIB)
    try:
        soak.run(seconds)
    finally:
        soak.program.close()
    assert soak.complaints == []
