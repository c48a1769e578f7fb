"""The broker for Xinhua against the sandbox, call by call."""

import asyncio
import base64
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from msgspec.structs import replace

import peer
from dumbwaiter.brokers.xinhua import Xinhua
from dumbwaiter.config import options as settings
from dumbwaiter.config.values import Duration, SecretSource
from dumbwaiter.errors import Blocked, Reject, Retry
from dumbwaiter.model import Ask, Entry, FollowUp, Grant, Limits, Receipt, Stamp
from dumbwaiter.net.http import Http
from dumbwaiter.providers.provider import Provider
from dumbwaiter.wire.message import Reply, Request
from dumbwaiter_sandbox.xinhua import ACCOUNT
from peer import Peer
from program import Vendors

T = TypeVar("T")
PICTURE = b"\xff\xd8\xff\xe0" + b"pixels" * 100 + b"\xff\xd9"


class Desk:
    """A provider at work in the sandbox; each `run` is one turn of the daemon."""

    def __init__(self, vendors: Vendors, **changes: Any) -> None:
        urls = vendors.sandbox.urls
        self.vendors = vendors
        self.options = settings.Xinhua(
            access_key=ACCOUNT["access_key"],
            secret_key=SecretSource("literal", changes.pop("secret_key", ACCOUNT["secret_key"])),
            **{"models": [ACCOUNT["model"]], "api": urls["xinhua"], "uc": urls["uc"], "process": True, **changes},
        )
        self.runner = asyncio.Runner()
        self.http = Http()
        self.provider: Provider
        self.restart()

    def restart(self) -> None:
        """Forgets all that is in memory."""

        async def requested(_count: int) -> None: ...

        self.broker = Xinhua(self.options)
        self.provider = Provider("news", self.broker, self.http, requested=requested)

    def run(self, work: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await work

        return self.runner.run(awaited())

    def close(self) -> None:
        self.runner.run(self.http.close())
        self.runner.close()

    def grants(self, *asks: Ask) -> list[Grant]:
        return list(self.run(self.broker.grants(asks, self.provider)))

    def follow(self, receipt: Receipt, tries: int = 0) -> FollowUp:
        return self.run(self.broker.follow_up(PHOTO, receipt, tries, self.provider))

    def stored(self) -> Receipt:
        """A picture in the bucket, as its transport would report it."""
        (grant,) = self.grants(PHOTO)
        fields = {"token": grant.ticket.token, "key": grant.key}
        files = {"file": ("photo.jpg", PICTURE, "image/jpeg")}
        httpx.post(grant.ticket.urls[0] + "/", data=fields, files=files, trust_env=False).raise_for_status()
        return Receipt(grant.key or "", facts=dict(grant.ticket.facts))

    def ended(self, receipt: Receipt) -> FollowUp:
        """Follows a picture up to its end."""
        for tries in range(20):
            follow = self.follow(receipt, tries)
            if follow.later is None:
                return follow
            receipt = follow.receipt
        raise AssertionError(receipt)

    def calls(self, call: str) -> int:
        return len(self.vendors.log(call))


def ask(name: str, held: str | None = None) -> Ask:
    return Ask("w", f"day/{name}", name, len(PICTURE), "image/jpeg", f"seed-of-{name.partition('.')[0]}", held)


PHOTO = ask("photo.jpg")


@pytest.fixture
def open_desk(tmp_path: Path) -> Iterator[Callable[..., Desk]]:
    opened: list[Desk] = []
    vendors = Vendors(tmp_path / "vendors")

    def make(**changes: Any) -> Desk:
        opened.append(Desk(vendors, **changes))
        return opened[-1]

    yield make
    for one in opened:
        one.close()
    vendors.close()


@pytest.fixture
def desk(open_desk: Callable[..., Desk]) -> Desk:
    return open_desk()


# Grants


def test_one_call_gives_the_tokens_of_many_pictures_in_their_order(desk: Desk) -> None:
    desk.vendors.faults("xinhua.tokens:reordered")
    asks = [ask(f"{number}.jpg") for number in range(20)]
    grants = desk.grants(*asks)
    assert [grant.key for grant in grants] == [f"{one.seed}.jpg" for one in asks]
    for grant, one in zip(grants, asks, strict=True):
        policy = json.loads(base64.urlsafe_b64decode(grant.ticket.token.rpartition(":")[2]))
        assert policy["scope"] == f"demo-c360:{grant.key}"
        assert grant.limits == Limits(1, 1024 * 1024, ("image/jpeg",))
        assert grant.expires_at == pytest.approx(policy["deadline"], abs=2)
        assert grant.ticket.fields == {"x:name": one.name}
        assert grant.ticket.urls == (desk.vendors.sandbox.urls["up1"], desk.vendors.sandbox.urls["up2"])
    assert (desk.calls("tokens"), desk.calls("jwt"), desk.calls("query")) == (1, 1, 1)


def test_a_get_carries_its_body_past_caches(desk: Desk) -> None:
    desk.grants(PHOTO)
    (call,) = desk.vendors.log("tokens")
    assert (call["method"], call["target"]) == ("GET", "/v1/upload/token")
    assert call["received"] == int(call["headers"]["content-length"]) == len(b'{"keys":["seed-of-photo.jpg"]}')
    assert call["headers"]["content-type"] == "application/json"
    assert call["headers"]["cache-control"] == "no-store"
    assert "transfer-encoding" not in call["headers"]


def test_a_key_is_kept_once_it_was_settled(desk: Desk) -> None:
    (grant,) = desk.grants(ask("photo.jpg", held="an-earlier-one.jpg"))
    assert grant.key == "an-earlier-one.jpg"


def test_a_prefix_stands_before_every_key(open_desk: Callable[..., Desk]) -> None:
    (grant,) = open_desk(prefix="desk-").grants(PHOTO)
    assert grant.key == "desk-seed-of-photo.jpg"


@pytest.mark.parametrize("request_as", ["post", "query"])
def test_keys_can_be_named_in_other_ways(open_desk: Callable[..., Desk], request_as: str) -> None:
    desk = open_desk(request=request_as)
    desk.vendors.http.put("/_sandbox/options", json={"xinhua": {"other_requests": True}}).raise_for_status()
    assert [grant.key for grant in desk.grants(PHOTO, ask("b.jpg"))] == ["seed-of-photo.jpg", "seed-of-b.jpg"]


def test_a_missing_token_is_asked_for_again_alone(desk: Desk) -> None:
    desk.vendors.faults("xinhua.tokens:fewer@1")
    assert len(desk.grants(PHOTO, ask("b.jpg"), ask("c.jpg"))) == 3
    assert [one["keys"] for one in desk.vendors.log("tokens")] == [2, 1]


@pytest.mark.parametrize("fault", ["other-key", "wrong-scope", "fewer"])
def test_a_token_for_another_key_is_not_used(desk: Desk, fault: str) -> None:
    desk.vendors.faults(f"xinhua.tokens:{fault}")
    with pytest.raises(Retry):
        desk.grants(PHOTO)


@pytest.mark.parametrize("fault", ["strip-body", "400", "405", "411"])
def test_a_dropped_body_is_told_with_its_remedy_and_no_files_fault(desk: Desk, fault: str) -> None:
    desk.vendors.faults(f"xinhua.tokens:{fault}")
    with pytest.raises(Blocked, match='request = "post"'):
        desk.grants(PHOTO)


def test_a_refusal_that_does_not_come_twice_is_nobodys_fault(desk: Desk) -> None:
    desk.vendors.faults("xinhua.tokens:400@1")
    assert len(desk.grants(PHOTO, ask("b.jpg"))) == 2


def test_one_key_that_is_refused_is_its_files_trouble_and_no_others(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which keys the vendor takes, nobody has written down."""
    ask_tokens = desk.broker._ask_tokens

    async def refusing(keys: Sequence[str], at: Any) -> Any:
        if "seed-of-b.jpg" in keys:
            desk.vendors.faults("xinhua.tokens:400@1")
        return await ask_tokens(keys, at)

    monkeypatch.setattr(desk.broker, "_ask_tokens", refusing)
    with pytest.raises(Retry, match="for 2 files at once"):
        desk.grants(PHOTO, ask("b.jpg"))
    assert desk.broker.batch == 1
    assert desk.grants(PHOTO)
    with pytest.raises(Reject, match=r"for the key seed-of-b.jpg"):
        desk.grants(ask("b.jpg"))
    assert desk.broker.batch == Xinhua.batch
    assert desk.grants(PHOTO, ask("c.jpg"))


def test_an_unreadable_policy_needs_the_upload_host_from_the_configuration(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk()
    desk.vendors.faults("xinhua.tokens:unreadable")
    with pytest.raises(Blocked, match="set upload"):
        desk.grants(PHOTO)
    (grant,) = open_desk(upload="https://up.example.test").grants(PHOTO)
    assert grant == Grant(grant.ticket, "seed-of-photo.jpg")
    assert grant.ticket.urls == ("https://up.example.test",)


@pytest.mark.parametrize(
    ("spec", "verdict"),
    [
        ("uc.query:cut", Retry),
        ("uc.query:html", Retry),
        ("uc.query:404", Retry),
    ],
)
def test_hosts_that_cannot_be_had(desk: Desk, spec: str, verdict: type[Exception]) -> None:
    desk.vendors.faults(spec)
    with pytest.raises(verdict):
        desk.grants(PHOTO)


def test_another_host_is_asked_when_one_answers_anything_but_hosts(
    open_desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = open_desk(uc=None)
    monkeypatch.setattr("dumbwaiter.brokers.xinhua.UC", (desk.vendors.sandbox.urls["uc"],) * 3)
    desk.vendors.faults("uc.query:404@1,uc.query:400@2")
    (grant,) = desk.grants(PHOTO)
    assert len(grant.ticket.urls) == 2
    assert desk.calls("query") == 3


def test_a_bucket_that_qiniu_does_not_know_is_a_persons_business(
    open_desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    body = b'{"error":"no such bucket"}'
    answer = b"HTTP/1.1 631 X\r\nX-Reqid: 1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    asked: list[tuple[bytes, bytes]] = []
    with Peer(peer.echo(asked, answer)) as server:
        monkeypatch.setattr("dumbwaiter.brokers.xinhua.UC", (server.url,) * 3)
        with pytest.raises(Blocked, match="set upload"):
            open_desk(uc=None).grants(PHOTO)
    assert len(asked) == 1


# Sign-in


@pytest.mark.parametrize("changes", [{"secret_key": "another"}, {"models": ["pg-other"]}])
def test_a_refused_account_is_told(open_desk: Callable[..., Desk], changes: dict[str, Any]) -> None:
    with pytest.raises(Blocked, match="refuses access_key, secret_key, models") as raised:
        open_desk(**changes).grants(PHOTO)
    assert "another" not in str(raised.value)


def test_no_model_means_all_of_them(open_desk: Callable[..., Desk]) -> None:
    assert open_desk(models=None).grants(PHOTO)


@pytest.mark.parametrize("shift", [-3600, 3600])
def test_the_refusal_sets_the_clock_right(desk: Desk, shift: int) -> None:
    desk.vendors.advance(shift)
    (grant,) = desk.grants(PHOTO)
    assert [one["status"] for one in desk.vendors.log("jwt")] == [400, 200]
    # The deadline is told by their clock, and kept by ours.
    assert grant.expires_at is not None
    assert abs(grant.expires_at - 1800 - desk.provider.now(desk.options.api) + shift) < 5


def test_a_longest_life_is_granted(open_desk: Callable[..., Desk]) -> None:
    assert open_desk(token_life=Duration(72 * 3600)).grants(PHOTO)


@pytest.mark.parametrize("spec", ["xinhua.jwt:unreadable", ""])
def test_a_jwt_is_kept_and_replaced_when_refused(desk: Desk, spec: str) -> None:
    desk.vendors.faults(spec)
    desk.grants(PHOTO)
    desk.grants(PHOTO)
    assert desk.calls("jwt") == 1
    desk.vendors.faults(f"{spec},xinhua.tokens:401@1")
    desk.grants(PHOTO)
    assert desk.calls("jwt") == 2
    desk.vendors.faults("xinhua.tokens:401")
    with pytest.raises(Blocked, match="refuses the account"):
        desk.grants(PHOTO)


def test_an_expired_jwt_is_replaced(desk: Desk) -> None:
    desk.grants(PHOTO)
    desk.vendors.advance(20 * 3600 + 1)
    desk.grants(PHOTO)
    assert [one["status"] for one in desk.vendors.log("tokens")] == [200, 401, 200]


@pytest.mark.parametrize(
    ("fault", "after"), [("429", 5.0), ("502", None), ("html", None), ("empty", None), ("cut", None)]
)
def test_weather_is_waited_for(desk: Desk, fault: str, after: float | None) -> None:
    desk.vendors.faults(f"xinhua.tokens:{fault}")
    with pytest.raises(Retry) as raised:
        desk.grants(PHOTO)
    assert raised.value.after == after


def test_an_error_in_an_envelope_is_an_error(desk: Desk) -> None:
    desk.vendors.faults("xinhua.tokens:code")
    with pytest.raises(Blocked, match="injected"):
        desk.grants(PHOTO)


# The object


def test_a_picture_is_confirmed_by_its_own_bytes(desk: Desk) -> None:
    (grant,) = desk.grants(PHOTO)
    with pytest.raises(Retry, match="cannot be read"):
        desk.run(desk.broker.confirm(grant, len(PICTURE), desk.provider))
    receipt = desk.stored()
    there = desk.run(desk.broker.confirm(grant, len(PICTURE), desk.provider))
    assert there is not None
    assert (there.key, len(there.etag)) == (receipt.key, 28)
    assert httpx.get(there.url or "", trust_env=False).content == PICTURE


# Tasks


def test_without_processing_nothing_is_asked_for(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(process=False)
    follow = desk.follow(desk.stored())
    assert (follow.later, follow.results) == (None, ())
    assert httpx.get(follow.receipt.url or "", trust_env=False).content == PICTURE
    assert desk.calls("task") == 0


def test_a_task_is_noted_before_it_is_created_and_its_number_right_after(desk: Desk) -> None:
    first = desk.follow(desk.stored())
    assert (first.later, first.receipt.facts["taskStatus"]) == (0.0, "asked")
    assert desk.calls("task") == 0
    second = desk.follow(first.receipt, 1)
    assert desk.calls("task") == 1
    assert len(second.receipt.facts["taskID"]) == 24
    assert 1.5 <= (second.later or 0) <= 2


def test_looks_grow_apart(desk: Desk) -> None:
    desk.vendors.faults("xinhua.watermark:stuck")
    receipt = desk.follow(desk.follow(desk.stored()).receipt, 1).receipt
    waits = [desk.follow(receipt, tries).later or 0 for tries in (2, 5, 20)]
    assert waits == sorted(waits)
    assert 22.5 <= waits[2] <= 30


def test_a_result_has_a_label_an_address_and_a_size(desk: Desk) -> None:
    follow = desk.ended(desk.stored())
    (result,) = follow.results
    content = httpx.get(result.url or "", trust_env=False).content
    assert (result.label, result.size) == ("watermark", len(content))
    assert (result.url or "").endswith(f"/demo-c360/{result.key}")
    assert follow.receipt.facts["image"] == result.url
    assert desk.calls("task") == 1
    assert desk.calls("unwatermark") == 0


@pytest.mark.parametrize("spec", ["cut-after@1", "cut-reply@1", "500@1", "html@1"])
def test_after_a_lost_answer_no_second_task_is_made(desk: Desk, spec: str) -> None:
    noted = desk.follow(desk.stored()).receipt
    desk.vendors.faults(f"xinhua.task:{spec}")
    with pytest.raises(Retry):
        desk.follow(noted, 1)
    assert desk.follow(noted, 2).receipt.facts["taskStatus"] == "unknown"
    assert desk.calls("task") == 1


def test_after_a_crash_no_second_task_is_made(desk: Desk) -> None:
    noted = desk.follow(desk.stored()).receipt
    desk.restart()
    follow = desk.follow(noted, 1)
    assert (follow.later, follow.receipt.facts["taskStatus"]) == (None, "unknown")
    assert desk.calls("task") == 0


def test_a_second_task_is_made_where_that_is_wanted(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(repeat_task=True)
    noted = desk.follow(desk.stored()).receipt
    desk.vendors.faults("xinhua.task:cut-after@1")
    with pytest.raises(Retry):
        desk.follow(noted, 1)
    assert "taskID" in desk.follow(noted, 2).receipt.facts


@pytest.mark.parametrize(
    "spec", ["xinhua.task:429@1", "xinhua.task:503@1", "xinhua.task:401@1x2", "xinhua.task:403@1x2"]
)
def test_what_certainly_made_no_task_is_tried_again(desk: Desk, spec: str) -> None:
    noted = desk.follow(desk.stored()).receipt
    desk.vendors.faults(spec)
    follow = desk.follow(noted, 1)
    assert follow.later is not None
    assert follow.blocked or follow.later > 1
    assert follow.error
    assert "taskStatus" not in follow.receipt.facts
    assert desk.ended(follow.receipt).receipt.facts["taskStatus"] == "done"
    assert sum(one["status"] == 200 for one in desk.vendors.log("task")) == 1


def test_a_server_that_cannot_be_reached_was_not_asked(desk: Desk) -> None:
    noted = desk.follow(desk.stored()).receipt
    desk.vendors.faults("xinhua.*:down")
    follow = desk.follow(noted, 1)
    assert "taskStatus" not in follow.receipt.facts
    assert follow.error


@pytest.mark.parametrize("fault", ["400", "quota", "code"])
def test_a_refused_task_is_a_fact(desk: Desk, fault: str) -> None:
    noted = desk.follow(desk.stored()).receipt
    desk.vendors.faults(f"xinhua.task:{fault}")
    follow = desk.follow(noted, 1)
    assert (follow.later, follow.receipt.facts["taskStatus"]) == (None, "refused")
    assert follow.receipt.facts["taskMessage"].startswith("Xinhua refuses a task")


def test_a_task_that_is_gone_is_a_fact(desk: Desk) -> None:
    receipt = desk.follow(desk.follow(desk.stored()).receipt, 1).receipt
    gone = replace(receipt, facts={**receipt.facts, "taskID": "../../0 not/there"})
    follow = desk.follow(gone, 2)
    assert (follow.later, follow.receipt.facts["taskStatus"]) == (None, "unknown")
    assert "404" in follow.receipt.facts["taskMessage"]


def test_a_result_that_cannot_be_seen_yet_is_waited_for(desk: Desk) -> None:
    desk.vendors.faults("io.get:404@1x2")
    follow = desk.ended(desk.stored())
    assert follow.results[0].size
    assert desk.calls("get") == 3


@pytest.mark.parametrize(("image", "key"), [("http://[::1/day/a%20b.jpg?e=1", "day/a b.jpg"), ("http://", "http://")])
def test_a_result_at_no_address_is_kept_without_one(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, image: str, key: str
) -> None:
    call = desk.http.call

    async def elsewhere(request: Request) -> Reply:
        reply = await call(request)
        return replace(reply, body=re.sub(rb'("image": ?)"[^"]*"', rb'\1"%s"' % image.encode(), reply.body))

    monkeypatch.setattr(desk.http, "call", elsewhere)
    follow = desk.ended(desk.stored())
    (result,) = follow.results
    assert (follow.later, result.key, result.url, result.size) == (None, key, None, None)


def test_no_patience_is_endless(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(patience=Duration(100))
    desk.vendors.faults("xinhua.watermark:unheard")
    receipt = desk.follow(desk.follow(desk.stored()).receipt, 1).receipt
    assert desk.follow(receipt, 2).later is not None
    old = replace(receipt, facts={**receipt.facts, "taskSince": str(int(receipt.facts["taskSince"]) - 101)})
    follow = desk.follow(old, 3)
    assert (follow.later, follow.receipt.facts["taskStatus"]) == (None, "postponed")


# Claims


def claim(desk: Desk, receipt: Receipt, intended: list[str]) -> Receipt:
    entry = Entry(1, "news", receipt.key, "w", "photo.jpg", Stamp(1, 2, 3, 4), 5.0, receipt.url, facts=receipt.facts)

    async def intend() -> None:
        intended.append(receipt.key)

    return desk.run(desk.broker.claim(entry, intend, desk.provider))


def test_a_claim_is_intended_right_before_its_call(desk: Desk) -> None:
    intended: list[str] = []
    receipt = claim(desk, desk.ended(desk.stored()).receipt, intended)
    assert receipt.label == "claimed"
    assert b"unwatermark" in httpx.get(receipt.url or "", trust_env=False).content
    assert len(intended) == desk.calls("unwatermark") == 1


def test_nothing_is_claimed_of_a_picture_without_a_finished_task(desk: Desk) -> None:
    intended: list[str] = []
    stored = desk.stored()
    with pytest.raises(Reject, match="nothing to claim"):
        claim(desk, stored, intended)
    begun = desk.follow(desk.follow(stored).receipt, 1).receipt
    with pytest.raises(Reject, match='"init"'):
        claim(desk, begun, intended)
    assert intended == []
    assert desk.calls("unwatermark") == 0


@pytest.mark.parametrize(("fault", "void"), [("429", True), ("cut-after", False), ("500", False), ("html", False)])
def test_a_claim_knows_whether_it_can_have_cost(desk: Desk, fault: str, void: bool) -> None:
    done = desk.ended(desk.stored()).receipt
    desk.vendors.faults(f"xinhua.unwatermark:{fault}")
    with pytest.raises(Retry) as raised:
        claim(desk, done, [])
    assert raised.value.void is void


def test_the_jwt_goes_nowhere_else(desk: Desk) -> None:
    claim(desk, desk.ended(desk.stored()).receipt, [])
    for one in desk.vendors.log():
        assert ("authorization" in one["headers"]) == (one["service"] == "xinhua" and one["call"] != "jwt"), one
