"""NetEase VOD against the vendor on loopback: signing in, upload nodes, and what becomes of a file afterwards."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

import peer
from dumbwaiter.brokers.netease import DOUBTED, NODES_LIFE, UNTOLD, VISIBLE
from dumbwaiter.config.values import SecretSource
from dumbwaiter.errors import Blocked, Reauth, Reject, Retry, Verdict
from dumbwaiter.model import FollowUp, Grant, Receipt
from dumbwaiter.providers.refresh_ahead import Cached
from dumbwaiter.tickets import NosTicket
from dumbwaiter_sandbox.netease import nos_token
from peer import Peer
from program import Vendors
from sending import Sender

Make = Callable[..., Sender]


def verdict(one: Sender) -> Verdict:
    """Asks for a grant and returns what it ended with; no sentence may hold a secret."""
    with pytest.raises(Verdict) as raised:
        one.obtain()
    text = f"{raised.value!s} {raised.value!r} {raised.value.__context__!r}"
    assert "vodsecret001" not in text
    assert "UPLOAD" not in text
    return raised.value


def answering(reply: object, status: int = 200) -> Peer:
    """A VOD service that gives every call the same answer."""
    body = reply if isinstance(reply, bytes) else msgspec.json.encode(reply)
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return Peer(peer.echo([], head + body))


# Grants


def test_a_grant_names_object_nodes_and_end(vendors: Vendors, sender: Make) -> None:
    one = sender("netease", b"x", "电影 1.mov")
    grant = one.obtain()
    ticket: NosTicket = grant.ticket
    assert grant.key == ticket.object
    assert ticket.object.endswith(".mov")
    assert ticket.bucket == vendors.sandbox.accounts["netease"]["bucket"]
    assert ticket.token.startswith("UPLOAD ")
    assert ticket.nodes == tuple(vendors.sandbox.urls[name] for name in ("nos1", "nos2"))
    now = vendors.http.get("/_sandbox/clock").json()["now"]
    assert grant.expires_at == pytest.approx(now + 30 * 86400, abs=10)
    (init,) = vendors.log("init")
    assert {"appkey", "nonce", "curtime", "checksum"} <= init["headers"].keys()
    assert init["headers"]["content-type"] == "application/json;charset=utf-8"


def test_each_grant_is_for_an_object_of_its_own(vendors: Vendors, sender: Make) -> None:
    assert len({sender("netease", b"x").obtain().key for _ in range(3)}) == 3


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.MOV", ".MOV"),
        ("a", ".bin"),
        (".hidden", ".bin"),
        ("a.", ".bin"),
        ("a.b c", ".bin"),
        ("a.tar.gz", ".gz"),
        ("a.123456789", ".bin"),
        ("电影.电影", ".电影"),
    ],
)
def test_a_name_that_vod_would_refuse_gets_a_suffix(vendors: Vendors, sender: Make, name: str, suffix: str) -> None:
    key = sender("netease", b"x", name).obtain().key
    assert key is not None
    assert key.endswith(suffix)


def test_a_nonce_is_never_used_twice(vendors: Vendors, sender: Make) -> None:
    vendors.options(refuse_replay=True)
    one = sender("netease", b"x")
    for _ in range(3):
        one.grant = None
        one.obtain()


def test_a_skewed_clock_is_set_right_by_the_first_refusal(vendors: Vendors, sender: Make) -> None:
    for seconds in (1200, -3600):
        vendors.http.post("/_sandbox/clock", json={"shift": seconds})
        vendors.http.delete("/_sandbox/log")
        one = sender("netease", b"x")
        grant = one.obtain()
        assert len(vendors.log("init")) == 2
        now = vendors.http.get("/_sandbox/clock").json()["now"]
        assert grant.expires_at == pytest.approx(now - seconds + 30 * 86400, abs=10)  # by our clock
        one.grant = None
        one.obtain()
        assert len(vendors.log("init")) == 3


def test_a_wrong_secret_blocks_the_provider(vendors: Vendors, sender: Make) -> None:
    one = sender("netease", b"x", changes={"app_secret": SecretSource("literal", "wrong secret")})
    found = verdict(one)
    assert type(found) is Blocked
    assert str(found) == (
        "NetEase refuses AppKey or AppSecret: check app_key and app_secret (code 710: CheckSum does not match)"
    )
    assert "wrong secret" not in str(found)
    assert len(vendors.log("init")) == 2


def test_a_code_without_words_is_a_code(vendors: Vendors, sender: Make) -> None:
    with answering({"code": 710, "msg": None, "ret": None}) as server:
        found = verdict(sender("netease", b"x", changes={"api": server.url}))
    assert type(found) is Blocked
    assert str(found).endswith("(code 710)")


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (400, Reject, "refuses upload/init: code 400"),
        (403, Reject, "refuses upload/init: code 403"),
        (404, Reject, "refuses upload/init: code 404"),
        (414, Reject, "refuses upload/init: code 414"),
        (700, Retry, "answers upload/init with code 700"),
        (702, Reject, "refuses upload/init: code 702"),
        (710, Blocked, "check app_key and app_secret"),
        (720, Blocked, "too little balance"),
        (721, Blocked, "has not opened the service"),
        (722, Blocked, "is still reviewing"),
        (723, Retry, "quota is used up"),
        (724, Retry, "code 724"),
        (999, Retry, "code 999"),
    ],
)
def test_a_code_of_vod_has_its_verdict(
    vendors: Vendors, sender: Make, code: int, kind: type[Verdict], words: str
) -> None:
    vendors.faults(f"vod.init:code-{code}")
    found = verdict(sender("netease", b"x"))
    assert type(found) is kind
    assert words in str(found)
    assert (getattr(found, "after", None) == 60.0) is (code == 723)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("401", Blocked), ("403", Blocked), ("404", Retry), ("429", Retry), ("500", Retry), ("502", Retry), ("302", Retry),
     ("html", Retry), ("empty", Retry), ("cut", Retry), ("cut-after", Retry), ("cut-reply", Retry)],
)  # fmt: skip
def test_a_status_or_a_break_has_its_verdict(vendors: Vendors, sender: Make, fault: str, kind: type[Verdict]) -> None:
    vendors.faults(f"vod.init:{fault}")
    one = sender("netease", b"x")
    assert isinstance(verdict(one), kind)
    vendors.faults("")
    assert one.obtain().key


@pytest.mark.parametrize(
    "reply",
    [
        {},
        {"code": "yes"},
        {"code": 200},
        {"code": 200, "ret": {}},
        {"code": 200, "ret": []},
        {"code": 200, "ret": {"bucket": "b", "object": "o"}},
        {"code": 200, "ret": {"bucket": 1, "object": "o", "xNosToken": "t"}},
        [],
        b"null",
        b'{"code":200,"ret":' + b"[" * 100_000,
    ],
)
def test_an_answer_of_another_shape_is_trouble_that_passes(vendors: Vendors, sender: Make, reply: object) -> None:
    with answering(reply) as vod:
        found = verdict(sender("netease", b"x", changes={"api": vod.url}))
    assert isinstance(found, Retry)
    assert "not the expected JSON" in str(found)


def test_vods_words_cannot_act_on_a_terminal(sender: Make) -> None:
    with answering({"code": 400, "msg": "\x1b[2J" + "long " * 200}) as vod:
        found = verdict(sender("netease", b"x", changes={"api": vod.url}))
    assert type(found) is Reject
    assert "\x1b" not in str(found)
    assert len(str(found)) < 300


def test_a_token_for_another_object_is_not_used(vendors: Vendors, sender: Make) -> None:
    token = sender("netease", b"x").obtain().ticket.token
    with answering({"code": 200, "ret": {"bucket": "voddumb01", "object": "other", "xNosToken": token}}) as vod:
        found = verdict(sender("netease", b"x", changes={"api": vod.url}))
    assert isinstance(found, Retry)
    assert str(found) == "NetEase gave a token for another object than it named"


def test_a_token_that_cannot_be_read_is_used_without_an_end(vendors: Vendors, sender: Make) -> None:
    with answering({"code": 200, "ret": {"bucket": "b", "object": "o", "xNosToken": "opaque"}}) as vod:
        grant = sender("netease", b"x", changes={"api": vod.url}).obtain()
    assert (grant.key, grant.expires_at, grant.ticket.token) == ("o", None, "opaque")


def test_limits_in_a_token_are_obeyed_before_a_byte_is_sent(vendors: Vendors, sender: Make) -> None:
    account = vendors.sandbox.accounts["netease"]
    policy = {
        "Bucket": "b",
        "Object": "o",
        "Expires": 4102329600,
        "ObjectSizeMin": 2,
        "ObjectSizeMax": 4,
        "MimeLimit": "video/*;image/png",
    }
    token = nos_token.mint(account["access_key"], account["secret_key"], policy)
    with answering({"code": 200, "ret": {"bucket": "b", "object": "o", "xNosToken": token}}) as vod:
        changes = {"api": vod.url}
        for data, name, words in (
            (b"1", "a.mov", "a.mov has 1 bytes; the provider wants 2 at least"),
            (b"12345", "a.mov", "a.mov has 5 bytes; the provider takes 4 at most"),
            (b"123", "a.txt", "a.txt is text/plain; the provider takes video/*, image/png"),
        ):
            found = verdict(sender("netease", data, name, changes=changes))
            assert type(found) is Reject
            assert str(found) == words
        assert sender("netease", b"123", "a.mov", changes=changes).obtain().key == "o"
    assert vendors.log("put") == []


# Upload nodes


def cached(one: Sender) -> Cached:
    (found,) = one.provider._cache._values.values()
    return found


def outlive(one: Sender, seconds: float = NODES_LIFE) -> None:
    """Has the list of nodes grow too old."""
    found = cached(one)
    assert found.fetched_at is not None
    found.fetched_at -= seconds + 1


LBS_FAULTS = ["cut", "cut-reply", "500", "404", "html", "empty", "colon", "no-nodes", "302"]


@pytest.mark.parametrize("fault", LBS_FAULTS)
def test_without_any_list_of_nodes_it_waits(vendors: Vendors, sender: Make, fault: str) -> None:
    vendors.faults(f"lbs.get:{fault}")
    one = sender("netease", b"x")
    assert isinstance(verdict(one), Retry)
    vendors.faults("")
    assert len(one.obtain().ticket.nodes) == 2


@pytest.mark.parametrize("fault", LBS_FAULTS)
def test_an_old_list_of_nodes_is_better_than_none(vendors: Vendors, sender: Make, fault: str) -> None:
    one = sender("netease", b"x")
    nodes = one.obtain().ticket.nodes
    outlive(one)
    vendors.faults(f"lbs.get:{fault}")
    one.grant = None
    assert one.obtain().ticket.nodes == nodes


def test_the_list_of_nodes_is_asked_for_once_an_hour(vendors: Vendors, sender: Make) -> None:
    one = sender("netease", b"x")
    for _ in range(3):
        one.grant = None
        one.obtain()
    assert len(vendors.log("get")) == 1
    outlive(one)
    vendors.options(node_order=["nos2", "nos1"])
    one.grant = None
    assert one.obtain().ticket.nodes == tuple(vendors.sandbox.urls[name] for name in ("nos2", "nos1"))
    assert len(vendors.log("get")) == 2


def test_who_did_not_get_through_asks_for_the_nodes_of_this_minute(vendors: Vendors, sender: Make) -> None:
    one = sender("netease", b"x")
    grant = one.obtain()
    vendors.options(node_order=["nos2", "nos1"])
    again = one.run(one.provider.broker.resume(grant, one.provider))
    assert again.ticket.nodes == grant.ticket.nodes
    outlive(one, DOUBTED)
    again = one.run(one.provider.broker.resume(grant, one.provider))
    assert again.ticket.nodes == tuple(vendors.sandbox.urls[name] for name in ("nos2", "nos1"))
    assert again.ticket.token == grant.ticket.token
    assert len(vendors.log("get")) == 2


def lbs(**members: Any) -> Peer:
    return answering(members)


@pytest.mark.parametrize(
    "nodes",
    [[], [""], ["nonsense"], ["ftp://59.111.35.13"], ["http://user@59.111.35.13"], ["http://59.111.35.13/path"], None],
)
def test_an_address_that_is_none_is_not_used(vendors: Vendors, sender: Make, nodes: Any) -> None:
    with lbs(**({} if nodes is None else {"upload": nodes}), lbs="x") as server:
        found = verdict(sender("netease", b"x", changes={"lbs": server.url}))
    assert isinstance(found, Retry)
    assert str(found) == "NetEase names no upload node"


@pytest.mark.parametrize("status", [200, 404])
def test_why_the_balancer_names_no_node_is_told(vendors: Vendors, sender: Make, status: int) -> None:
    with answering({"Code": "NoSuchBucket", "Message": "no such bucket"}, status) as server:
        found = verdict(sender("netease", b"x", changes={"lbs": server.url}))
    assert str(found) == "NetEase names no upload node: NoSuchBucket no such bucket"


def test_a_balancer_that_does_not_tell_its_own_address_is_asked_by_name(vendors: Vendors, sender: Make) -> None:
    with lbs(upload=["http://127.0.0.1:1"], lbs=None) as server:
        grant = sender("netease", b"x", changes={"lbs": server.url}).obtain()
    assert grant.ticket.nodes == ("http://127.0.0.1:1",)


@pytest.mark.parametrize(
    "inside", ["http://127.0.0.1:1", "http://169.254.169.254", "http://[::1]", "http://10.0.0.1", "http://0x7f.1"]
)
def test_a_public_list_cannot_send_us_inside(
    vendors: Vendors, sender: Make, inside: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forged answer would make us talk to our own network, and carry a token there."""

    with lbs(upload=[inside, "http://59.111.35.13"], lbs=f"{inside}/lbs") as server:
        one = sender("netease", b"x", changes={"lbs": "http://wanproxy.127.net"})
        call = one.http.call

        async def elsewhere(request: Any) -> Any:
            url = request.url.replace("http://wanproxy.127.net", server.url)
            return await call(msgspec.structs.replace(request, url=url))

        monkeypatch.setattr(one.http, "call", elsewhere)
        assert one.obtain().ticket.nodes == ("http://59.111.35.13",)
        assert one.provider.broker._lbs == ()  # type: ignore[attr-defined]


def test_the_balancer_is_asked_by_its_address_first_and_by_name_when_that_fails(vendors: Vendors, sender: Make) -> None:
    with lbs(upload=["http://node.test"], lbs="http://127.0.0.1:1/lbs") as server:
        one = sender("netease", b"x", changes={"lbs": server.url})
        one.obtain()
        assert one.provider.broker._lbs == ("http://127.0.0.1:1/lbs",)  # type: ignore[attr-defined]
        outlive(one)
        one.grant = None
        assert one.obtain().ticket.nodes == ("http://node.test",)


def test_a_grant_from_the_journal_gets_todays_nodes(vendors: Vendors, sender: Make) -> None:
    one = sender("netease", b"x")
    grant = one.obtain()
    old = Grant(msgspec.structs.replace(grant.ticket, nodes=("http://gone.test",)), grant.key, grant.expires_at)
    resumed = one.run(one.provider.broker.resume(old, one.provider))
    assert resumed == grant


# Afterwards


def follow(one: Sender, receipt: Receipt, tries: int = 0) -> FollowUp:
    found: FollowUp = one.run(one.provider.broker.follow_up(one.ask, receipt, tries, one.provider))
    return found


def test_the_videos_number_address_and_size_are_learned(vendors: Vendors, sender: Make) -> None:
    one = sender("netease", bytes(2_000_000))
    receipt = one.attempt()
    assert receipt.verified == ""
    found = follow(one, receipt)
    assert (found.later, found.error) == (None, None)
    assert found.receipt.verified == "size"
    assert found.receipt.facts["vid"].isdigit()
    assert found.receipt.url == f"{vendors.sandbox.urls['cdn']}/{receipt.facts['bucket']}/{receipt.key}"
    assert vendors.http.get(found.receipt.url).content == bytes(2_000_000)


def test_an_image_has_a_number_of_its_own(vendors: Vendors, sender: Make) -> None:
    vendors.options(image_ids=True)
    one = sender("netease", b"x", "photo.jpg")
    found = follow(one, one.attempt())
    assert found.receipt.facts["image"].isdigit()
    assert found.receipt.url is not None


def test_a_video_that_is_not_listed_yet_is_asked_for_again_and_in_the_end_told(vendors: Vendors, sender: Make) -> None:
    vendors.options(register_delay=1e6)
    one = sender("netease", b"x")
    receipt = one.attempt()
    waits = []
    for tries in range(VISIBLE):
        found = follow(one, receipt, tries)
        assert found.error == "NetEase VOD does not list the object yet"
        waits.append(found.later)
    assert waits == [2.0**tries for tries in range(VISIBLE)]
    found = follow(one, receipt, VISIBLE)
    assert found.later is None
    assert found.receipt.facts["registered"] == "no"
    assert found.receipt.url is not None


def test_a_file_whose_callback_failed_is_asked_for_less_often(vendors: Vendors, sender: Make) -> None:
    vendors.faults("nos.put:520")
    one = sender("netease", b"x")
    receipt = one.until_done()
    assert follow(one, receipt, UNTOLD - 1).later is not None
    assert follow(one, receipt, UNTOLD).later is None


def test_another_size_at_the_provider_is_told_and_nothing_counts_as_verified(vendors: Vendors, sender: Make) -> None:
    one = sender("netease", b"12345")
    receipt = one.attempt()
    assert receipt.verified == "md5"
    longer = sender("netease", b"123456789")
    found = longer.run(longer.provider.broker.follow_up(longer.ask, receipt, 0, longer.provider))
    assert found.receipt.verified == ""
    assert found.receipt.facts["size_at_provider"] == "5"


@pytest.mark.parametrize("fault", ["vod.query:500", "vod.query:cut", "vod.query:html", "vod.get:code-700"])
def test_trouble_afterwards_passes(vendors: Vendors, sender: Make, fault: str) -> None:
    one = sender("netease", b"x")
    receipt = one.attempt()
    vendors.faults(fault)
    with pytest.raises(Retry):
        follow(one, receipt)
    vendors.faults("")
    assert follow(one, receipt).receipt.facts["vid"]


def test_an_object_is_confirmed_by_vod_or_by_its_size_and_else_not(vendors: Vendors, sender: Make) -> None:
    one = sender("netease", b"12345")
    grant = one.obtain()

    def confirm(size: int = 5) -> Receipt | None:
        found: Receipt | None = one.run(one.provider.broker.confirm(grant, size, one.provider))
        return found

    assert confirm() is None
    one.attempt()
    listed = confirm()
    assert listed is not None
    assert (listed.key, listed.facts) == (grant.key, {"bucket": grant.ticket.bucket})
    vendors.options(register_delay=1e6)
    late = sender("netease", b"12345")
    late_grant = late.obtain()
    late.attempt()
    seen = late.run(late.provider.broker.confirm(late_grant, 5, late.provider))
    assert seen.verified == "size"
    assert late.run(late.provider.broker.confirm(late_grant, 6, late.provider)) is None
    vendors.options(signed_downloads=True)
    assert late.run(late.provider.broker.confirm(late_grant, 5, late.provider)) is None
    vendors.faults("cdn.*:down")
    assert late.run(late.provider.broker.confirm(late_grant, 5, late.provider)) is None


def test_a_refused_token_leads_to_a_new_object(vendors: Vendors, sender: Make) -> None:
    one = sender("netease", b"x")
    before = one.obtain().key
    one.take(Reauth("refused"))
    assert one.obtain().key != before
