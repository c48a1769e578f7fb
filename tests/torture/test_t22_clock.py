"""T22: clocks that are set, ours and the vendors', and a program that was stopped: work goes on, with one correction."""

import mmap
import signal
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from ledger import MIB, PROVIDERS, Ledger
from program import Program

HOUR, DAY = 3600.0, 86400.0
SOON = 100.0  # seconds until work has gone on
REFUSED = {400, 401, 403, 419}

# The daemon, with a wall clock whose hands another process turns. All else of it is as it is.
TURNED = """
import datetime, mmap, os, struct, time
with open(os.environ["HANDS"], "rb") as file:
    hands = mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ)
real, wall = datetime.datetime, time.time
time.time = lambda: wall() + struct.unpack("d", hands[:8])[0]
class Kind(type):
    def __instancecheck__(cls, value):
        return isinstance(value, real)
class Turned(real, metaclass=Kind):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)
datetime.datetime = Turned
from dumbwaiter.cli import main
main()
"""


@pytest.fixture
def turn(program: Program) -> Iterator[Callable[[float], None]]:
    """Sets the clock of the daemon, which is started here, by so many seconds."""
    path = program.folder / "hands"
    path.write_bytes(struct.pack("d", 0.0))
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 8) as hands:
        program.start(sys.executable, "-c", TURNED, environment={"HANDS": str(path)})

        def by(seconds: float) -> None:
            hands[:8] = struct.pack("d", seconds)

        yield by


def arrived(program: Program, service: str = "") -> int:
    return sum(one["received"] for one in program.vendors.log() if one["service"].startswith(service))


def goes_on(program: Program) -> None:
    """Waits until all is done; an account that is refused would end `wait` early."""
    program.until(lambda: program("wait", "--timeout", "1s").returncode == 0, patience=SOON)


def blocked(program: Program) -> bool:
    return any(one["state"] == "blocked" for one in program.status()["providers"])


def refusals(program: Program) -> Counter[str]:
    """Returns the calls that a vendor refused of itself, and how often."""
    log = program.vendors.log()
    return Counter(f"{one['service']}.{one['call']}" for one in log if one["status"] in REFUSED and not one["fault"])


@pytest.mark.parametrize("seconds", [-HOUR, -DAY, pytest.param(DAY, marks=pytest.mark.torture)])
def test_t22_when_the_clock_on_the_wall_is_set_work_goes_on(
    program: Program, turn: Callable[[float], None], seconds: float
) -> None:
    """Files on their way, one that waits for another try, one whose account is refused, and new ones."""
    book = Ledger(program, f"clock {seconds}")
    program.vendors.faults("latency=200ms,presign.sign:500")
    program.vendors.options("careyshop", right=False)
    for name in ("netease", "careyshop-sts"):
        book.write(f"{name}/large.bin", book.numbers.randbytes(30 * MIB))
    book.new("recipe")
    book.new("careyshop")
    program.until(lambda: arrived(program) > 16 * MIB and blocked(program))
    program.until(lambda: len(program.vendors.log("sign")) >= 3)  # the next wait is some seconds
    before, already = refusals(program), program.totals()["grants_requested"]
    turn(seconds)
    program.vendors.faults("latency=20ms")
    program.vendors.options("careyshop", right=True)
    for name in ("netease", "careyshop-sts", "jiandaoyun", "xinhua"):
        book.new(name)
    goes_on(program)
    program.until(lambda: "the clock was set" in program.log.read_text())
    refused, asked = refusals(program) - before, program.totals()["grants_requested"] - already
    assert refused.total() <= 6, refused
    assert asked <= 12
    assert program.stop() == 0
    assert book.complaints() == []
    assert program.totals()["rejected"] == 0
    assert "Traceback" not in program.log.read_text()


def test_t22_what_is_on_its_way_when_the_clock_is_set_forward_is_begun_once(
    program: Program, turn: Callable[[float], None]
) -> None:
    book = Ledger(program, "forward")
    program.vendors.faults("nos.put:slow=1m@2")
    book.write("netease/large.bin", book.numbers.randbytes(10 * MIB))
    program.until(lambda: any(one["fault"] for one in program.vendors.log()))
    turn(DAY)
    book.new("recipe")
    goes_on(program)
    assert program.stop() == 0
    assert book.complaints() == []
    assert arrived(program, "nos") < 11 * MIB
    assert "Traceback" not in program.log.read_text()


@pytest.mark.parametrize("seconds", [10, pytest.param(90, marks=pytest.mark.torture)])
def test_t22_a_program_that_was_stopped_goes_on_where_it_was(program: Program, seconds: float) -> None:
    """Meanwhile the vendors' clocks went on by ten minutes and their connections ended, as they would in that time."""
    book = Ledger(program, "stopped")
    program.vendors.options(token_life=500)
    program.vendors.options("careyshop", token_life=500)
    program.vendors.faults("latency=200ms,presign.sign:500")
    program.start()
    for name in ("netease", "careyshop-sts"):
        book.write(f"{name}/large.bin", book.numbers.randbytes(30 * MIB))
    book.new("recipe")
    program.until(lambda: arrived(program) > 16 * MIB)
    assert program.daemon is not None
    program.daemon.send_signal(signal.SIGSTOP)
    try:
        program.vendors.faults("*:down")
        program.vendors.advance(600)
        for name in ("netease", "careyshop-sts", "jiandaoyun", "recipe"):
            book.new(name)
        time.sleep(seconds)  # being stopped is what is tested
        program.vendors.faults("")
    finally:
        program.daemon.send_signal(signal.SIGCONT)
    goes_on(program)
    program.until(lambda: "the program was held" in program.log.read_text())
    totals = program.totals()
    assert program.stop() == 0
    assert book.complaints() == []
    assert totals["rejected"] == 0
    # What was on its way broke, and its permission had ended: at most each large file once more.
    assert totals["bytes_resent"] <= 2 * 30 * MIB
    assert refusals(program).total() <= 12, refusals(program)
    assert "Traceback" not in program.log.read_text()


@pytest.mark.parametrize("minutes", [20, -20])
def test_t22_a_vendors_clock_that_is_wrong_costs_each_of_its_servers_one_correction(
    program: Program, minutes: float
) -> None:
    book = Ledger(program, f"vendors {minutes}")
    program.vendors.advance(60 * minutes)
    program.start()
    for name in sorted(PROVIDERS):
        book.new(name, 5000)
    goes_on(program)
    learned = refusals(program)
    assert max(learned.values(), default=0) <= 4, learned  # as many as may be under way before the first answer
    for name in sorted(PROVIDERS) * 3:
        book.new(name, 5000)
    book.write("careyshop-sts/large.bin", book.numbers.randbytes(20 * MIB))
    book.write("netease/large.bin", book.numbers.randbytes(20 * MIB))
    goes_on(program)
    assert refusals(program) == learned
    assert program.stop() == 0
    assert book.complaints() == []
    assert program.totals()["rejected"] == 0
