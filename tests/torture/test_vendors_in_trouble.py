"""T02, T09, T12, T13, T17: answers that are lost, permissions that end, vendors that lie, and no network at all.

All ten providers at once, at the real daemon; each transport by itself stands in `transports/`.
"""

import time
from collections import Counter
from collections.abc import Iterator

import pytest

from ledger import JPEG, KIB, MIB, PROVIDERS, Ledger
from program import Program

torture = pytest.mark.torture
# The request that makes the object, or tells that it is made, for each way to upload.
LAST = (
    "nos.complete", "kodo.form", "kodo.complete", "presign.put", "oss.post", "oss.put", "oss.complete",
    "careyshop.upload", "tos.put", "tos.merge", "imagex.commit", "forms.create", "xinhua.task",
)  # fmt: skip


@pytest.fixture
def book(program: Program) -> Iterator[Ledger]:
    """A file for every provider, and large ones where that is another way to upload."""
    made = Ledger(program, "vendors in trouble")
    yield made
    assert program.daemon is not None
    assert program.stop() == 0
    assert made.complaints() == []
    assert program.totals()["rejected"] == 0


def drop(book: Ledger, *, large: bool = True) -> None:
    for name in sorted(PROVIDERS):
        body = book.numbers.randbytes(5 * KIB)  # never empty: equal files could not be counted
        book.write(
            f"{name}/small.{'jpg' if name == 'xinhua' else 'bin'}", body.join(JPEG) if name == "xinhua" else body
        )
    for name in ("netease", "jiandaoyun", "careyshop-sts", "jimeng") if large else ():
        # Above 20 MiB ImageX takes parts.
        book.write(f"{name}/large.bin", book.numbers.randbytes((21 if name == "jimeng" else 9) * MIB))


def quiet(program: Program) -> None:
    """Waits until all is done, with a person who does not wait for any back-off."""

    def done() -> bool:
        if program("--json", "wait", "--timeout", "1s").returncode == 0:
            return True
        waiting = [str(one["id"]) for one in program.status()["jobs"] if not one["active"]]
        return bool(waiting) and program("retry", *waiting).returncode < 0  # never

    program.until(done, patience=90)


@pytest.mark.parametrize("fault", ["cut-after", pytest.param("cut-reply", marks=torture)])
def test_t02_the_answer_to_the_last_step_is_lost_and_nothing_doubles(
    program: Program, book: Ledger, fault: str
) -> None:
    program.vendors.faults(",".join(f"{call}:{fault}@1" for call in LAST))
    program.start()
    drop(book)
    quiet(program)
    assert {one["fault"] for one in program.vendors.log() if one["fault"]} == {fault}
    # Where the vendor names the object, a lost answer may leave one that nobody knows of; never more.
    copies = Counter(program.objects())
    assert all(copies[content] <= 2 for content in book.standing.values())
    assert len(program.facts("history", "-n", "1000")) >= len(book.standing)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("netease", "nos.complete"),
        pytest.param("jiandaoyun", "kodo.complete", marks=torture),
        ("careyshop-sts", "oss.complete"),
        pytest.param("jimeng", "tos.merge", marks=torture),
    ],
)
def test_t02_a_kill_after_the_last_step_was_done_doubles_nothing(
    program: Program, book: Ledger, name: str, call: str
) -> None:
    program.vendors.faults(f"{call}:cut-after@1")
    program.start()
    book.write(f"{name}/large.bin", book.numbers.randbytes(22 * MIB))
    program.until(lambda: any(one["fault"] for one in program.vendors.log()))
    program.kill()
    program.start()
    quiet(program)
    # Where the vendor names the object, nobody can ask for the one whose name was lost.
    assert len(program.objects()) <= (2 if name in {"jimeng", "jiandaoyun"} else 1)
    assert sum(one["received"] for one in program.vendors.log()) < (52 if name == "jiandaoyun" else 30) * MIB


@pytest.mark.parametrize(
    "faults",
    [
        "*:403@5x10",
        pytest.param("*:429@5x15", marks=torture),
        pytest.param(
            "nos.put:expired@2x2,kodo.part:expired-token@2x2,oss.part:expired@2x2,tos.part:auth-expired@1x2",
            marks=torture,
        ),
        pytest.param(
            "imagex.apply:keys-expired@1x2,careyshop.upload:signed-out@1x2,careyshop.token:signed-out@1x1",
            marks=torture,
        ),
    ],
)
def test_t09_refused_permissions_reject_no_file(program: Program, book: Ledger, faults: str) -> None:
    program.vendors.faults(faults)
    program.start()
    drop(book)
    quiet(program)


def test_t09_permissions_that_end_meanwhile_are_replaced_with_few_requests(program: Program, book: Ledger) -> None:
    program.vendors.faults("latency=40ms")
    program.start()
    drop(book)
    program.until(lambda: program.totals()["bytes_sent"] > 8 * MIB)
    program.vendors.advance(2 * 86400)
    program.vendors.faults("")
    quiet(program)
    assert program.totals()["grants_requested"] < 80


def test_t09_an_account_that_is_refused_for_ever_is_asked_seldom_and_told(program: Program) -> None:
    book = Ledger(program, "refused")
    program.vendors.faults("vod.init:403")
    program.start()
    for _ in range(20):
        book.new("netease", 100)
    program.until(lambda: len(program.vendors.log("init")) > 0)
    assert program("wait", "--timeout", "10s").returncode in {5, 20, 21}
    assert len(program.vendors.log("init")) <= 40
    facts = program.status()
    assert facts["totals"]["rejected"] == 0
    provider = next(one for one in facts["providers"] if one["name"] == "netease")
    assert provider["error"] or provider["state"] == "blocked"


@torture
def test_t12_offsets_that_lie_lead_to_the_end(program: Program, book: Ledger) -> None:
    program.vendors.faults(
        "seed=3,nos.put:short%30,nos.put:backwards%15,nos.put:beyond%10,nos.put:context%20,nos.put:noprogress%10,"
        "nos.put:lost-context@9,nos.query:404@2,kodo.part:no-upload@2,oss.part:no-upload@2,tos.part:upload-gone@2"
    )
    program.start()
    for number in range(3):
        book.write(f"netease/{number}.mov", book.numbers.randbytes(20 * MIB + number))
    drop(book)
    quiet(program)


@torture
def test_t13_what_is_stored_but_said_otherwise_is_done_once(program: Program, book: Ledger) -> None:
    program.vendors.faults(
        "nos.complete:520@1x2,kodo.form:579@1,kodo.complete:579@1,oss.complete:203@1,oss.post:203@1,"
        "kodo.form:cut-after@2,tos.merge:already-there@1"
    )
    program.vendors.options("kodo", same_content="exists")
    program.start()
    drop(book)
    quiet(program)
    assert program.totals()["done"] == len(book.standing)


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("*:down", 30),
        pytest.param("*:html", 100, marks=torture),
        pytest.param("*:down", 5000, marks=[pytest.mark.torture, pytest.mark.timeout(900)]),
        pytest.param("*:stall", 200, marks=[pytest.mark.torture, pytest.mark.timeout(600)]),
    ],
)
def test_t17_without_a_network_files_wait_few_probes_are_made_and_all_drain(
    program: Program, book: Ledger, kind: str, count: int
) -> None:
    program.vendors.faults(kind)
    program.start()
    for number in range(count):
        book.new(sorted(PROVIDERS)[number % len(PROVIDERS)], 300)
    program.until(lambda: program.totals()["pending"] == count, patience=120)
    started, before = time.monotonic(), program.vendors.sandbox.world.log.total
    program("wait", "--timeout", "3s")
    probes = program.vendors.sandbox.world.log.total - before
    assert probes < 40 * (time.monotonic() - started + 1)
    assert program.totals()["rejected"] == 0
    program.vendors.faults("")
    assert program("retry", "--all").returncode == 0
    assert program("wait", "--timeout", "10m", patience=660).returncode == 0
    assert program.totals()["done"] == count


@pytest.mark.parametrize(
    ("watch", "fault", "call"),
    [("careyshop", "careyshop.upload:no-permission", "upload"), ("jimeng", "imagex.commit:uri-failed", "commit")],
)
def test_t09_a_refusal_that_lasts_is_met_less_and_less_often(
    program: Program, watch: str, fault: str, call: str
) -> None:
    program.vendors.faults(fault)
    program.drop = program.data / "drop" / watch
    program.write("a.bin", bytes(5 * KIB))
    program.start()

    def failures() -> int:
        return sum(job["attempts"] for job in program.status()["jobs"])

    program.until(lambda: failures() >= 4)
    assert len(program.vendors.log(call)) <= 4 * (1 + failures())
    program.vendors.faults("")
    assert program("retry", "--all").returncode == 0
    assert program("wait").returncode == 0
    assert program.stop() == 0
