"""Providers at work, with a broker made by hand and a clock to turn."""

import asyncio
import gc
from collections.abc import Callable, Coroutine, Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from dumbwaiter import grants, pace
from dumbwaiter.broker import SLOWER, Broker
from dumbwaiter.doors import Desk
from dumbwaiter.errors import Blocked, JournalTrouble, Reject, Retry, Verdict
from dumbwaiter.grants import FLIGHTS, MARGIN, PROBE, REFUSALS, REFUSED_APART, RENEW, Provider, freeze, thaw
from dumbwaiter.model import Ask, Grant, Limits
from dumbwaiter.policy import AFTER_MAX
from dumbwaiter.tickets import NosTicket
from dumbwaiter.transports import TRANSPORTS, choose
from dumbwaiter.wire.message import FileSlice, Reply, Request

NOW = 1_800_000_000.0
LIFE = 100.0


def ask(path: str = "a/film.mov", size: int = 10, mime: str = "video/quicktime") -> Ask:
    return Ask(watch="w", path=path, key=path, size=size, mime=mime, seed="seed")


class Bank(Broker):
    """Gives what its list says, in calls that a test holds back."""

    requests = 1e9

    def __init__(self, given: Sequence[Any] = (), batch: int = 1) -> None:
        self.given = list(given)
        self.batch = batch
        self.asked: list[list[str]] = []
        self.hold = asyncio.Event()
        self.hold.set()

    async def grants(self, asks: Sequence[Ask], desk: Desk) -> Sequence[Grant]:
        self.asked.append([one.path for one in asks])
        await self.hold.wait()
        answer = self.given.pop(0) if self.given else [Grant(one.path, one.path) for one in asks]
        if isinstance(answer, Exception):
            raise answer
        return list(answer)


class Turned:
    """The clocks of a provider."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passed = 0.0
        turned = SimpleNamespace(monotonic=lambda: 5000.0 + self.passed, time=self.now)
        monkeypatch.setattr(grants, "time", turned)
        monkeypatch.setattr(pace, "time", turned)

    def now(self) -> float:
        return NOW + self.passed


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Turned:
    return Turned(monkeypatch)


def provider(clock: Turned, broker: Broker | None = None, **changes: Any) -> Provider:
    async def requested(count: int) -> None:
        counted.append(count)

    counted: list[int] = []
    arguments: dict[str, Any] = {"clock": clock.now, "requested": requested}
    made = Provider("vod", broker or Bank(), SimpleNamespace(skew=lambda url: 7.0), **(arguments | changes))  # type: ignore[arg-type]
    made.counted = counted  # type: ignore[attr-defined]
    return made


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs a test in a loop in which nothing may go unheard."""

    async def heard() -> None:
        unheard: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: unheard.append(context))
        async with asyncio.timeout(20):
            await test()
        for _ in range(3):
            await asyncio.sleep(0)
        gc.collect()
        assert unheard == []

    asyncio.run(heard())


class Told:
    """A person: what was said to him. The journal may be in trouble first."""

    def __init__(self, *troubles: JournalTrouble) -> None:
        self.troubles = list(troubles)
        self.heard: list[tuple[str, str]] = []

    async def __call__(self, provider: str, sentence: str) -> None:
        if self.troubles:
            raise self.troubles.pop()
        self.heard.append((provider, sentence))


class Source:
    """Something to be kept: counts how often it is fetched, and fails when told to."""

    def __init__(self) -> None:
        self.fetched = 0
        self.fails: Verdict | None = None
        self.hold = asyncio.Event()
        self.hold.set()

    async def __call__(self) -> str:
        self.fetched += 1
        number = self.fetched
        await self.hold.wait()
        if self.fails:
            raise self.fails
        return f"value {number}"


async def turn() -> None:
    """Lets what runs in the background come to its end."""
    for _ in range(5):
        await asyncio.sleep(0)


# What is kept


def test_fifty_who_wait_make_one_fetch(clock: Turned) -> None:
    async def test() -> None:
        one, source = provider(clock), Source()
        source.hold.clear()
        waiting = [asyncio.create_task(one.kept("nodes", LIFE, source)) for _ in range(50)]
        await turn()
        source.hold.set()
        assert set(await asyncio.gather(*waiting)) == {"value 1"}
        assert source.fetched == 1

    run(test)


def test_a_value_is_kept_for_most_of_its_life(clock: Turned) -> None:
    async def test() -> None:
        one, source = provider(clock), Source()
        assert await one.kept("nodes", LIFE, source) == "value 1"
        clock.passed = LIFE * RENEW
        assert await one.kept("nodes", LIFE, source) == "value 1"
        await turn()
        assert source.fetched == 1

    run(test)


def test_near_its_end_it_is_renewed_in_the_background(clock: Turned) -> None:
    async def test() -> None:
        one, source = provider(clock), Source()
        await one.kept("nodes", LIFE, source)
        clock.passed = LIFE * RENEW + 1
        source.hold.clear()
        assert [await one.kept("nodes", LIFE, source) for _ in range(10)] == ["value 1"] * 10
        await turn()
        assert source.fetched == 2
        source.hold.set()
        await turn()
        assert await one.kept("nodes", LIFE, source) == "value 2"
        assert source.fetched == 2

    run(test)


def test_past_its_end_who_asks_waits_for_the_new_one(clock: Turned) -> None:
    async def test() -> None:
        one, source = provider(clock), Source()
        await one.kept("nodes", LIFE, source)
        clock.passed = LIFE + 1
        assert await one.kept("nodes", LIFE, source) == "value 2"

    run(test)


def test_the_old_value_stays_while_it_cannot_be_renewed(clock: Turned) -> None:
    async def test() -> None:
        one, source = provider(clock), Source()
        await one.kept("nodes", LIFE, source)
        source.fails = Retry("the source is away")
        for clock.passed in (LIFE * RENEW + 1, LIFE + 1, LIFE * 100):
            assert await one.kept("nodes", LIFE, source) == "value 1"
            await turn()
        assert source.fetched == 4
        source.fails = False
        assert await one.kept("nodes", LIFE, source) == "value 5"

    run(test)


def test_the_first_failure_is_raised_to_all_and_tried_again(clock: Turned) -> None:
    async def test() -> None:
        one, source = provider(clock), Source()
        source.fails = Retry("the source is away")
        failures = await asyncio.gather(*(one.kept("nodes", LIFE, source) for _ in range(3)), return_exceptions=True)
        assert [str(failure) for failure in failures] == ["the source is away"] * 3
        assert source.fetched == 1
        source.fails = False
        assert await one.kept("nodes", LIFE, source) == "value 2"

    run(test)


def test_a_waiter_who_leaves_does_not_end_the_fetch_of_the_others(clock: Turned) -> None:
    async def test() -> None:
        one, source = provider(clock), Source()
        source.hold.clear()
        leaves, stays = (asyncio.create_task(one.kept("nodes", LIFE, source)) for _ in range(2))
        await turn()
        leaves.cancel()
        await turn()
        source.hold.set()
        assert await stays == "value 1"
        assert leaves.cancelled()

    run(test)


def test_a_value_is_renewed_by_the_life_that_it_was_last_given(clock: Turned) -> None:
    async def test() -> None:
        one, source = provider(clock), Source()
        await one.kept("session", 10 * LIFE, source)  # before it is known
        await one.kept("session", LIFE, source)
        clock.passed = LIFE * RENEW + 1
        await one.refresh(Told())
        assert source.fetched == 2

    run(test)


def test_values_are_kept_by_name(clock: Turned) -> None:
    async def test() -> None:
        one, first, second = provider(clock), Source(), Source()
        assert [await one.kept("a", LIFE, first), await one.kept("b", LIFE, second)] == ["value 1"] * 2
        assert (first.fetched, second.fetched) == (1, 1)

    run(test)


def test_a_refused_value_is_fetched_anew_if_it_still_is_that_one(clock: Turned) -> None:
    async def test() -> None:
        one, source = provider(clock), Source()
        await one.kept("session", LIFE, source)
        one.forget("session", "another value")
        one.forget("nothing", "value 1")
        assert await one.kept("session", LIFE, source) == "value 1"
        one.forget("session", "value 1")
        assert await one.kept("session", LIFE, source) == "value 2"

    run(test)


def test_refreshing_renews_what_nears_its_end_and_nothing_else(clock: Turned) -> None:
    async def test() -> None:
        one, old, young = provider(clock), Source(), Source()
        await one.kept("old", LIFE, old)
        await one.kept("young", 10 * LIFE, young)
        clock.passed = LIFE * RENEW + 1
        await one.refresh(Told())
        assert (old.fetched, young.fetched) == (2, 1)
        assert one.trouble is None
        old.fails = Retry("the source is away")
        clock.passed *= 2
        await one.refresh(Told())
        assert one.trouble == "the source is away"
        assert await one.kept("old", LIFE, old) == "value 2"

    run(test)


def test_a_refused_account_is_told_of_once_and_again_when_the_journal_could_not_take_it(clock: Turned) -> None:
    async def test() -> None:
        one, source, person = provider(clock), Source(), Told(JournalTrouble("the disk is full"))
        await one.kept("session", LIFE, source)
        source.fails = Blocked("the password is another one")
        clock.passed = LIFE * RENEW + 1
        with pytest.raises(JournalTrouble):
            await one.refresh(person)
        assert one.paused_until > clock.now()
        assert not one.blocked
        for _ in range(2):
            one.again()
            await one.refresh(person)
            assert one.blocked
        await one.block("a file met it too", clock.now() + 1, person)
        assert person.heard == [("vod", "the password is another one")]

    run(test)


# The desk


def test_requests_keep_the_vendors_pace(clock: Turned, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second's worth at once after a rest, then one at a time; uploads are counted where the vendor does."""
    waits: list[float] = []

    def pass_by(seconds: float) -> None:
        waits.append(seconds)
        clock.passed += seconds

    async def sleep(seconds: float) -> None:
        pass_by(seconds)

    async def call(request: Request) -> Reply:
        return Reply(200)

    class Slow(Bank):
        requests = 10.0
        uploads = 2.0

    async def test() -> None:
        one = provider(clock, Slow())
        one._http = SimpleNamespace(call=call)  # type: ignore[assignment]
        monkeypatch.setattr(grants.asyncio, "sleep", sleep)
        for _ in range(30):
            await one.call(Request("x", "GET", "http://x"))
        assert sum(waits) == pytest.approx(2.0)
        waits.clear()
        clock.passed += 100
        one._http = SimpleNamespace(exchange=lambda request, abort: Reply(200))  # type: ignore[assignment]
        abort = SimpleNamespace(wait=pass_by)
        for _ in range(6):
            one.exchange(Request("x", "PUT", "http://x", body=FileSlice(0, 0, 1)), abort)  # type: ignore[arg-type]
        assert sum(waits) == pytest.approx(2.0)
        waits.clear()
        for _ in range(100):
            one.exchange(Request("x", "GET", "http://x"), abort)  # type: ignore[arg-type]
        assert waits == []
        monkeypatch.undo()

    asyncio.run(test())


def test_a_node_that_named_another_is_tried_after_it(clock: Turned) -> None:
    one = provider(clock)
    one._http.order = list  # type: ignore[method-assign]
    assert one.order(("a", "b")) == ["a", "b"]
    one.better("a", "c")
    assert one.order(("a", "b")) == ["c", "a", "b"]
    one.better("a", "b")
    assert one.order(("a", "b")) == ["b", "a"]


def test_time_is_told_as_the_server_has_it(clock: Turned) -> None:
    async def test() -> None:
        one = provider(clock)
        assert one.now("http://x") == NOW + 7.0
        assert one.skew("http://x") == 7.0
        assert len({one.nonce() for _ in range(1000)}) == 1000

    run(test)


# Grants


def test_each_call_for_grants_is_counted(clock: Turned) -> None:
    async def test() -> None:
        one = provider(clock)
        for number in range(3):
            assert (await one.grant(ask(f"{number}"))).key == f"{number}"
        assert one.counted == [1, 1, 1]  # type: ignore[attr-defined]

    run(test)


def test_who_asks_meanwhile_shares_the_next_call(clock: Turned) -> None:
    async def test() -> None:
        bank = Bank(batch=10)
        bank.hold.clear()
        one = provider(clock, bank)
        first = asyncio.create_task(one.grant(ask("first")))
        await turn()
        others = [asyncio.create_task(one.grant(ask(f"{number}"))) for number in range(15)]
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
        results = await asyncio.gather(*(one.grant(ask(name)) for name in "abc"), return_exceptions=True)
        assert [type(result) for result in results] == [Reject, Reject, Grant]

    run(test)


def test_a_service_that_asks_to_wait_is_asked_by_nobody_until_then(clock: Turned) -> None:
    bank = Bank([Retry("too fast", after=30.0), Retry("too fast", after=1e9)])
    one = provider(clock, bank)

    async def test() -> None:
        for passed, calls, left in ((0.0, 1, 30.0), (10.0, 1, 20.0), (31.0, 2, 1e9), (32.0, 2, AFTER_MAX - 1.0)):
            clock.passed = passed
            with pytest.raises(Retry, match="too fast") as told:
                await one.grant(ask())
            assert (len(bank.asked), told.value.after) == (calls, pytest.approx(left))
            assert one.rests_until > clock.now()
        one.again()
        assert one.rests_until == 0.0
        assert await one.grant(ask())

    asyncio.run(test())


@pytest.mark.parametrize(("status", "after", "waits"), [(429, 17.0, 17.0), (429, None, SLOWER), (503, 17.0, 0.0)])
def test_an_upload_node_that_is_asked_too_often_is_sent_no_other_file_until_then(
    clock: Turned, status: int, after: float | None, waits: float
) -> None:
    one = provider(clock, Bank())
    reply = Reply(status, after=after)
    one._http = SimpleNamespace(exchange=lambda request, abort: reply)  # type: ignore[assignment]
    assert one.exchange(Request("x", "PUT", "http://x"), SimpleNamespace()) is reply  # type: ignore[arg-type]
    assert max(0.0, one.rests_until - clock.now()) == pytest.approx(waits, abs=1.0)
    one.well(clock.now())  # another node took a file
    assert one.rests_until == 0.0


@pytest.mark.parametrize("trouble", [Blocked("the account is closed"), Retry("no answer")])
def test_what_all_would_meet_is_met_once(clock: Turned, trouble: Verdict) -> None:
    async def test() -> None:
        bank = Bank([trouble])
        one = provider(clock, bank)
        results = await asyncio.gather(*(one.grant(ask(f"{number}")) for number in range(64)), return_exceptions=True)
        assert results == [trouble] * 64
        assert len(bank.asked) == 1
        assert (await one.grant(ask("later"))).key == "later"

    run(test)


def test_files_that_each_need_a_call_are_asked_for_side_by_side(clock: Turned) -> None:
    async def test() -> None:
        bank = Bank()
        one = provider(clock, bank)
        await one.grant(ask("first"))
        bank.hold.clear()
        others = [asyncio.create_task(one.grant(ask(f"{number}"))) for number in range(10)]
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
        leaves, stays = (asyncio.create_task(one.grant(ask(name))) for name in ("leaves", "stays"))
        await turn()
        leaves.cancel()
        await turn()
        bank.hold.set()
        assert (await stays).key == "stays"

    run(test)


def test_a_vendor_who_gives_fewer_than_asked_leaves_nobody_waiting(clock: Turned) -> None:
    async def test() -> None:
        one = provider(clock, Bank([[Grant("t", "a")], []], batch=3))
        results = await asyncio.gather(*(one.grant(ask(name)) for name in "abc"), return_exceptions=True)
        assert [type(result) for result in results] == [Grant, Retry, Retry]
        with pytest.raises(Retry, match="fewer permissions than were asked for"):
            await one.grant(ask("d"))

    run(test)


def test_what_comes_beyond_what_was_asked_is_kept_while_it_lasts(clock: Turned) -> None:
    async def test() -> None:
        end = NOW + 1000
        given = [Grant(f"t{number}", None, expires_at=end) for number in range(3)]
        bank = Bank([given])
        one = provider(clock, bank)
        assert [(await one.grant(ask(name))).ticket for name in "ab"] == ["t0", "t1"]
        assert (len(bank.asked), one.spare, one.expires_at) == (1, 1, end)
        clock.passed = 1000 - MARGIN
        assert (await one.grant(ask("late"))).key == "late"
        assert (len(bank.asked), one.spare) == (2, 0)

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
        await one.grant(ask())
        clock.passed = 3300
        assert (await one.grant(ask(), 600)).ticket[0] == "2"
        assert (await one.grant(ask(), 100)).ticket[0] == "1"
        assert len(bank.asked) == 2

    run(test)


@pytest.mark.parametrize("life", [40.0, 300.0])
def test_what_no_grant_can_do_costs_no_call_for_each_file(clock: Turned, life: float) -> None:
    bank = Bank([[Grant("sts", None, clock.now() + life, many=True)]])

    async def test() -> None:
        one = provider(clock, bank)
        for _ in range(5):
            assert (await one.grant(ask(), 600)).ticket == "sts"
        assert len(bank.asked) == 1

    run(test)


def test_a_refused_grant_is_not_given_out_again(clock: Turned) -> None:
    async def test() -> None:
        given = [Grant(f"t{number}", None) for number in range(3)]
        one = provider(clock, Bank([given]))
        await one.grant(ask("a"))
        one.refuse(given[1], ask("a"))
        assert (await one.grant(ask("b"))).ticket == "t2"

    run(test)


def test_what_came_with_a_refused_grant_is_not_tried_either(clock: Turned) -> None:
    """The vendor's clock may have gone ahead of the one that their end was reckoned by."""

    async def test() -> None:
        given = [Grant(f"t{number}", None, expires_at=NOW + 1000) for number in range(100)]
        one = provider(clock, Bank([given, [Grant("new", None, expires_at=NOW + 2000)]]))
        one.refuse(await one.grant(ask("a")), ask("a"))
        assert (await one.grant(ask("b"))).ticket == "new"

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
            assert (await one.grant(wanted)).key == "k"
        else:
            with pytest.raises(Reject) as raised:
                await one.grant(wanted)
            assert str(raised.value) == sentence

    run(test)


def test_a_grant_that_did_not_fit_one_file_serves_another(clock: Turned) -> None:
    async def test() -> None:
        one = provider(clock, Bank([[Grant("t", None, limits=Limits(size_max=5))]]))
        with pytest.raises(Reject):
            await one.grant(ask(size=6))
        assert (await one.grant(ask(size=5))).ticket == "t"

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
        restored = await one.restore(frozen, 0.0)
        assert restored is not None
        assert restored.ticket.nodes == ("http://new",)
        assert restored.key == GRANT.key
        assert await one.restore(frozen, 1000 - MARGIN - 1) is not None
        assert await one.restore(frozen, 1000 - MARGIN + 1) is None
        clock.passed = 500
        one._life = 500.0  # no new one would live longer than this one still does
        assert await one.restore(frozen, 1e9) is not None
        clock.passed = 1000 - MARGIN + 1
        assert await one.restore(frozen, 0.0) is None
        endless = freeze(Grant(TICKET, "k"), choose(TICKET, 1))
        assert await one.restore(endless, 1e9) is not None

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
        assert await provider(clock).restore(stored, 0.0) is None

    run(test)


def test_a_providers_state_is_one_word(clock: Turned) -> None:
    async def test() -> None:
        one = provider(clock)
        assert one.state(NOW) == "ready"
        one.paused_until = NOW + 1
        assert one.state(NOW) == "paused"
        assert one.state(NOW + 2) == "ready"
        one.blocked = True
        assert one.state(NOW + 2) == "blocked"
        one.again()  # until that is refused too
        assert one.state(NOW + 2) == "ready"
        one.paused_until = NOW + 900
        assert one.state(NOW + 2) == "blocked"

    run(test)


def test_an_upload_that_ends_well_while_the_account_is_refused_does_not_hide_that(clock: Turned) -> None:
    async def test() -> None:
        one = provider(clock)
        one.trouble, one.blocked, one.paused_until = "the key is refused", True, NOW + 900
        one.well(NOW)
        assert one.state(NOW) == "blocked"
        one.well(NOW + 900)
        assert (one.state(NOW + 900), one.trouble) == ("ready", None)

    asyncio.run(test())


def test_new_grants_that_are_refused_one_after_the_other_say_something_of_the_account(clock: Turned) -> None:
    one = provider(clock)
    for times in range(1, REFUSALS):
        for _ in range(20):  # files at once: all of them met the same moment
            assert not one.refused(clock.now())
        assert one.refusals == times
        clock.passed += REFUSED_APART + 1
    assert one.refused(clock.now())
    assert one.refused(clock.now())


def test_a_grant_that_was_asked_for_before_another_one_was_refused_says_nothing_more(clock: Turned) -> None:
    one, asked_at = provider(clock), NOW
    clock.passed = 5 * REFUSED_APART
    for _ in range(2 * REFUSALS):
        assert not one.refused(asked_at)
        clock.passed += REFUSED_APART + 1
    assert one.refusals == 1


def test_a_success_lets_the_refusals_be_counted_anew(clock: Turned) -> None:
    one = provider(clock)
    for _ in range(2 * REFUSALS):
        assert not one.refused(clock.now())
        one.well(clock.now())
        clock.passed += REFUSED_APART + 1


def test_a_network_that_fails_again_and_again_is_tried_less_and_less_often(clock: Turned) -> None:
    async def test() -> None:
        one = provider(clock)
        one.failed("no route", offline=True, wait=5.0)
        assert (one.offline, one.probe_at) == (True, 0.0)  # once is nothing
        one.failed("no route", offline=True, wait=5.0)
        assert one.probe_at == NOW + 5
        one.failed("no route", offline=True, wait=500.0)
        assert one.probe_at == NOW + PROBE
        one.again()
        assert (one.offline, one.probe_at, one.losses) == (True, 0.0, 3)
        one.failed("status 502", offline=False, wait=5.0)
        assert (one.offline, one.probe_at, one.losses) == (False, 0.0, 0)

    run(test)
