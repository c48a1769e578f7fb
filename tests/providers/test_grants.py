"""Grants: who shares a call, what is left over, what a file is refused for."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

import hand_made
from dumbwaiter.broker import SLOWER
from dumbwaiter.doors import Desk
from dumbwaiter.errors import Blocked, Reject, Retry, Verdict
from dumbwaiter.model import Ask, Grant, Limits
from dumbwaiter.policy import AFTER_MAX
from dumbwaiter.providers.grants import FLIGHTS, MARGIN, OVER_APART, freeze, thaw
from dumbwaiter.tickets import NosTicket
from dumbwaiter.transports import TRANSPORTS, choose
from dumbwaiter.wire.message import Reply, Request
from hand_made import NOW, Bank, Turned, ask, provider, run, turn

clock = hand_made.clock


def test_each_call_for_grants_is_counted(clock: Turned) -> None:
    async def test() -> None:
        one = provider(clock)
        for number in range(3):
            assert (await one.grants.obtain(ask(f"{number}"))).key == f"{number}"
        assert one.counted == [1, 1, 1]  # type: ignore[attr-defined]

    run(test)


def test_who_asks_meanwhile_shares_the_next_call(clock: Turned) -> None:
    async def test() -> None:
        bank = Bank(batch=10)
        bank.hold.clear()
        one = provider(clock, bank)
        first = asyncio.create_task(one.grants.obtain(ask("first")))
        await turn()
        others = [asyncio.create_task(one.grants.obtain(ask(f"{number}"))) for number in range(15)]
        await turn()
        bank.hold.set()
        assert (await first).key == "first"
        assert [(await other).key for other in others] == [f"{number}" for number in range(15)]
        assert [len(asked) for asked in bank.asked] == [1, 10, 5]
        assert one.counted == [1, 1, 1]  # type: ignore[attr-defined]

    run(test)


def test_what_a_file_is_refused_for_goes_to_those_who_asked_and_not_to_the_next(clock: Turned) -> None:
    async def test() -> None:
        one = provider(clock, Bank([Reject("not these")], batch=2))
        results = await asyncio.gather(*(one.grants.obtain(ask(name)) for name in "abc"), return_exceptions=True)
        assert [type(result) for result in results] == [Reject, Reject, Grant]

    run(test)


def test_a_service_that_asks_to_wait_is_asked_by_nobody_until_then(clock: Turned) -> None:
    bank = Bank([Retry("too fast", after=30.0), Retry("too fast", after=1e9)])
    one = provider(clock, bank)

    async def test() -> None:
        for passed, calls, left in ((0.0, 1, 30.0), (10.0, 1, 20.0), (31.0, 2, 1e9), (32.0, 2, AFTER_MAX - 1.0)):
            clock.passed = passed
            with pytest.raises(Retry, match="too fast") as told:
                await one.grants.obtain(ask())
            assert (len(bank.asked), told.value.after) == (calls, pytest.approx(left))
            assert one.health.rests_until > clock.now()
            assert one.health.next_at == one.health.rests_until
        one.health.again()
        assert one.health.rests_until == 0.0
        assert await one.grants.obtain(ask())

    asyncio.run(test())


@pytest.mark.parametrize(("status", "after", "waits"), [(429, 17.0, 17.0), (429, None, SLOWER), (503, 17.0, 0.0)])
def test_an_upload_node_that_is_asked_too_often_is_sent_no_other_file_until_then(
    clock: Turned, status: int, after: float | None, waits: float
) -> None:
    one = provider(clock, Bank())
    reply = Reply(status, after=after)
    one._http = SimpleNamespace(exchange=lambda request, abort: reply)  # type: ignore[assignment]
    assert one.exchange(Request("x", "PUT", "http://x"), SimpleNamespace()) is reply  # type: ignore[arg-type]
    assert max(0.0, one.health.rests_until - clock.now()) == pytest.approx(waits, abs=1.0)
    one.health.well(clock.now())  # another node took a file
    assert one.health.rests_until == 0.0


@pytest.mark.parametrize("trouble", [Blocked("the account is closed"), Retry("no answer")])
def test_what_all_would_meet_is_met_once(clock: Turned, trouble: Verdict) -> None:
    async def test() -> None:
        bank = Bank([trouble])
        one = provider(clock, bank)
        results = await asyncio.gather(
            *(one.grants.obtain(ask(f"{number}")) for number in range(64)), return_exceptions=True
        )
        assert results == [trouble] * 64
        assert len(bank.asked) == 1
        assert (await one.grants.obtain(ask("later"))).key == "later"

    run(test)


def test_files_that_each_need_a_call_are_asked_for_side_by_side(clock: Turned) -> None:
    async def test() -> None:
        bank = Bank()
        one = provider(clock, bank)
        await one.grants.obtain(ask("first"))
        bank.hold.clear()
        others = [asyncio.create_task(one.grants.obtain(ask(f"{number}"))) for number in range(10)]
        await turn()
        assert len(bank.asked) == 1 + FLIGHTS
        bank.hold.set()
        assert [(await other).key for other in others] == [f"{number}" for number in range(10)]

    run(test)


def test_one_who_leaves_does_not_take_the_others_grant(clock: Turned) -> None:
    async def test() -> None:
        bank = Bank(batch=2)
        bank.hold.clear()
        one = provider(clock, bank)
        leaves, stays = (asyncio.create_task(one.grants.obtain(ask(name))) for name in ("leaves", "stays"))
        await turn()
        leaves.cancel()
        await turn()
        bank.hold.set()
        assert (await stays).key == "stays"

    run(test)


def test_for_one_who_left_before_his_turn_nothing_is_asked(clock: Turned) -> None:
    async def test() -> None:
        bank = Bank(batch=2)
        bank.hold.clear()
        one = provider(clock, bank)
        first, leaves, stays = (
            asyncio.create_task(one.grants.obtain(ask(name))) for name in ("first", "leaves", "stays")
        )
        await turn()
        bank.asked.clear()
        late = [asyncio.create_task(one.grants.obtain(ask(name))) for name in ("late", "later")]
        await turn()
        late[0].cancel()
        await turn()
        bank.hold.set()
        assert [(await each).key for each in (first, leaves, stays, late[1])] == ["first", "leaves", "stays", "later"]
        assert "late" not in [path for asked in bank.asked for path in asked]

    run(test)


def test_what_one_call_brings_for_all_is_asked_for_once(clock: Turned) -> None:
    async def test() -> None:
        bank = Bank([[Grant(f"t{number}", None, NOW + 100 * (number + 1), many=True)] for number in range(2)])
        one = provider(clock, bank)
        assert (await one.grants.obtain(ask())).ticket == "t0"
        clock.passed = 100.0
        bank.hold.clear()
        others = [asyncio.create_task(one.grants.obtain(ask(f"{number}"))) for number in range(10)]
        await turn()
        bank.hold.set()
        assert {(await other).ticket for other in others} == {"t1"}
        assert len(bank.asked) == 2
        assert one.grants.spare == 1

    run(test)


def test_what_fits_no_file_any_more_is_asked_for_anew(clock: Turned) -> None:
    class Fits(Bank):
        def fit(self, grant: Grant, ask: Ask) -> Grant:
            if grant.ticket == "old":
                raise Retry("not this one")
            return grant

    async def test() -> None:
        one = provider(clock, Fits([[Grant(name, None, many=True)] for name in ("old", "new")]))
        with pytest.raises(Retry, match="not this one"):
            await one.grants.obtain(ask())
        assert (await one.grants.obtain(ask())).ticket == "new"

    run(test)


def test_a_grant_with_a_key_that_a_file_is_refused_for_serves_no_other(clock: Turned) -> None:
    async def test() -> None:
        one = provider(clock, Bank([[Grant("t", "a", limits=Limits(size_max=1))]]))
        with pytest.raises(Reject):
            await one.grants.obtain(ask("a"))
        assert (await one.grants.obtain(ask("b"))).key == "b"

    run(test)


def test_a_grant_that_ended_in_use_was_not_over_before(clock: Turned) -> None:
    """Else the clocks would be blamed."""

    async def test() -> None:
        one = provider(clock, Bank([[Grant("t", None, NOW + 100)]]))
        grant = await one.grants.obtain(ask())
        clock.passed = 200.0
        assert not one.grants.refuse(grant, ask(), NOW)
        assert one.grants.refuse(grant, ask(), NOW + 150)

    run(test)


def test_a_vendor_who_gives_fewer_than_asked_leaves_nobody_waiting(clock: Turned) -> None:
    async def test() -> None:
        one = provider(clock, Bank([[Grant("t", "a")], []], batch=3))
        results = await asyncio.gather(*(one.grants.obtain(ask(name)) for name in "abc"), return_exceptions=True)
        assert [type(result) for result in results] == [Grant, Retry, Retry]
        with pytest.raises(Retry, match="fewer permissions than were asked for"):
            await one.grants.obtain(ask("d"))

    run(test)


def test_what_comes_beyond_what_was_asked_is_kept_while_it_lasts(clock: Turned) -> None:
    async def test() -> None:
        end = NOW + 1000
        given = [Grant(f"t{number}", None, expires_at=end) for number in range(3)]
        bank = Bank([given])
        one = provider(clock, bank)
        assert [(await one.grants.obtain(ask(name))).ticket for name in "ab"] == ["t0", "t1"]
        assert (len(bank.asked), one.grants.spare, one.grants.expires_at) == (1, 1, end)
        clock.passed = 1000 - MARGIN
        assert one.grants.spare == 0
        assert (await one.grants.obtain(ask("late"))).key == "late"
        assert (len(bank.asked), one.grants.spare) == (2, 0)

    run(test)


@pytest.mark.parametrize("many", [True, False])
def test_a_grant_that_ends_before_a_file_could_is_left_to_shorter_ones(clock: Turned, many: bool) -> None:
    def given() -> list[Grant]:
        made = len(bank.asked)
        return [Grant(f"{made}.{number}", None, clock.now() + 3600, many=many) for number in range(1 if many else 3)]

    class Fresh(Bank):
        async def grants(self, asks: Sequence[Ask], desk: Desk) -> Sequence[Grant]:
            self.asked.append([one.path for one in asks])
            return given()

    bank = Fresh(batch=3)

    async def test() -> None:
        one = provider(clock, bank)
        await one.grants.obtain(ask())
        clock.passed = 3300
        assert (await one.grants.obtain(ask(), 600)).ticket[0] == "2"
        assert (await one.grants.obtain(ask(), 100)).ticket[0] == "1"
        assert len(bank.asked) == 2

    run(test)


@pytest.mark.parametrize("life", [40.0, 300.0])
def test_what_no_grant_can_do_costs_no_call_for_each_file(clock: Turned, life: float) -> None:
    bank = Bank([[Grant("sts", None, clock.now() + life, many=True)]])

    async def test() -> None:
        one = provider(clock, bank)
        for _ in range(5):
            assert (await one.grants.obtain(ask(), 600)).ticket == "sts"
        assert len(bank.asked) == 1

    run(test)


def test_a_refused_grant_is_not_given_out_again(clock: Turned) -> None:
    async def test() -> None:
        given = [Grant(f"t{number}", None) for number in range(3)]
        one = provider(clock, Bank([given]))
        await one.grants.obtain(ask("a"))
        one.grants.refuse(given[1], ask("a"), NOW)
        assert (await one.grants.obtain(ask("b"))).ticket == "t2"

    run(test)


def test_what_came_with_a_refused_grant_is_not_tried_either(clock: Turned) -> None:
    """The vendor's clock may have gone ahead of the one that their end was reckoned by."""

    async def test() -> None:
        given = [Grant(f"t{number}", None, expires_at=NOW + 1000) for number in range(100)]
        one = provider(clock, Bank([given, [Grant("new", None, expires_at=NOW + 2000)]]))
        assert not one.grants.refuse(await one.grants.obtain(ask("a")), ask("a"), NOW)
        assert (await one.grants.obtain(ask("b"))).ticket == "new"

    run(test)


def test_what_was_over_when_it_came_is_tried_once_an_hour(clock: Turned) -> None:
    """By whose clock, nobody can know; where it was refused, others like it are no reason to send a file."""
    over, good = Grant("over", None, expires_at=NOW - 1), Grant("good", None, expires_at=NOW + 9999)

    async def test() -> None:
        one = provider(clock, Bank([[over], [over], [over], [good], [over]]))
        for _ in range(2):  # as long as none was refused, our own clock may be the wrong one
            assert await one.grants.obtain(ask()) == over
        assert one.grants.refuse(over, ask(), NOW)
        with pytest.raises(Retry, match="over before it came"):
            await one.grants.obtain(ask())
        assert await one.grants.obtain(ask()) == good
        clock.passed = OVER_APART
        assert await one.grants.obtain(ask()) == over

    run(test)


LIMITS: list[tuple[Limits, Ask, str | None]] = [
    (Limits(), ask(size=0), None),
    (Limits(1, 10), ask(size=1), None),
    (Limits(1, 10), ask(size=10), None),
    (Limits(1, 10), ask(size=11), "film.mov has 11 bytes; the provider takes 10 at most"),
    (Limits(1, 10), ask(size=0), "film.mov has 0 bytes; the provider wants 1 at least"),
    (Limits(0, 0), ask(size=1), "film.mov has 1 bytes; the provider takes 0 at most"),
    (Limits(mime=("video/quicktime",)), ask(), None),
    (Limits(mime=("video/*",)), ask(), None),
    (Limits(mime=("image/*", "*/*")), ask(), None),
    (Limits(mime=("video/mp4",)), ask(), "film.mov is video/quicktime; the provider takes video/mp4"),
    (Limits(mime=("vid*/*", "image/*")), ask(), "film.mov is video/quicktime; the provider takes vid*/*, image/*"),
    (Limits(mime=("video/*",)), ask(mime="videos/x"), "film.mov is videos/x; the provider takes video/*"),
    (Limits(mime=("image/*",)), ask("a.txt", mime="text/plain"), "a.txt is text/plain; the provider takes image/*"),
    (Limits(mime=("image/*",)), ask("a", mime="application/octet-stream"), None),  # the server looks inside
    (Limits(suffixes=("mov",)), ask("A/B.MOV"), None),
    (
        Limits(suffixes=("mp4", "avi")),
        ask(),
        "the provider does not take film.mov: its suffix is none of mp4, avi",
    ),
    (Limits(1, 2), ask("x\x1b[2J.mov"), "x\\x1b[2J.mov has 10 bytes; the provider takes 2 at most"),
]


@pytest.mark.parametrize(("limits", "wanted", "sentence"), LIMITS)
def test_a_file_that_the_grant_excludes_is_rejected_with_words(
    clock: Turned, limits: Limits, wanted: Ask, sentence: str | None
) -> None:
    async def test() -> None:
        one = provider(clock, Bank([[Grant("t", "k", limits=limits)]]))
        if sentence is None:
            assert (await one.grants.obtain(wanted)).key == "k"
        else:
            with pytest.raises(Reject) as raised:
                await one.grants.obtain(wanted)
            assert str(raised.value) == sentence

    run(test)


def test_a_grant_that_did_not_fit_one_file_serves_another(clock: Turned) -> None:
    async def test() -> None:
        one = provider(clock, Bank([[Grant("t", None, limits=Limits(size_max=5))]]))
        with pytest.raises(Reject):
            await one.grants.obtain(ask(size=6))
        assert (await one.grants.obtain(ask(size=5))).ticket == "t"

    run(test)


# Through the journal

TICKET = NosTicket("bucket", "object 测试", "UPLOAD a:b:c", ("http://node1", "http://node2"))
GRANT = Grant(TICKET, "object 测试", NOW + 1000, Limits(0, 5, ("video/*",)))


def test_a_grant_is_thawed_as_it_was_frozen() -> None:
    frozen = freeze(GRANT, choose(TICKET, 1))
    assert thaw(frozen) == GRANT
    assert isinstance(thaw(frozen).ticket, NosTicket)
    bare = Grant(TICKET, "k")
    assert thaw(freeze(bare, choose(TICKET, 1))) == bare


@pytest.mark.parametrize("row", [row for row in TRANSPORTS if row.session], ids=lambda row: row.name)
def test_every_session_ticket_can_be_frozen(row: Any) -> None:
    """With texts in all places that take one; that is what a ticket of a later transport has to survive."""
    fields = msgspec.structs.fields(row.ticket)
    values = {one.name: ("a", "b") if "tuple" in str(one.type) else "text" for one in fields if one.required}
    try:
        ticket = msgspec.convert(values, row.ticket, strict=False)
    except msgspec.ValidationError:
        pytest.skip("this ticket holds more than texts")
    assert thaw(freeze(Grant(ticket, "k"), row)) == Grant(ticket, "k")


def test_a_journalled_grant_is_restored_while_it_lasts(clock: Turned) -> None:
    class Renews(Bank):
        async def resume(self, grant: Grant, desk: Desk) -> Grant:
            return msgspec.structs.replace(grant, ticket=msgspec.structs.replace(grant.ticket, nodes=("http://new",)))

    async def test() -> None:
        one = provider(clock, Renews())
        frozen = freeze(GRANT, choose(TICKET, 1))
        restored = await one.grants.restore(frozen, 0.0)
        assert restored is not None
        assert restored.ticket.nodes == ("http://new",)
        assert restored.key == GRANT.key
        assert await one.grants.restore(frozen, 1000 - MARGIN - 1) is not None
        assert await one.grants.restore(frozen, 1000 - MARGIN + 1) is None
        clock.passed = 500
        one.grants._life = 500.0  # no new one would live longer than this one still does
        assert await one.grants.restore(frozen, 1e9) is not None
        clock.passed = 1000 - MARGIN + 1
        assert await one.grants.restore(frozen, 0.0) is None
        endless = freeze(Grant(TICKET, "k"), choose(TICKET, 1))
        assert await one.grants.restore(endless, 1e9) is not None

    run(test)


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "{}",
        "null",
        "not JSON",
        '{"kind":"pigeon","grant":{"ticket":{},"key":"k"}}',
        '{"kind":"nos","grant":{"ticket":{},"key":"k"}}',
    ],
)
def test_a_grant_of_another_program_is_asked_for_anew(clock: Turned, stored: str) -> None:
    async def test() -> None:
        assert await provider(clock).grants.restore(stored, 0.0) is None

    run(test)
