"""NetEase NOS against the vendor on loopback: what each answer of a node leads to, and what is sent again."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

import peer
from dumbwaiter.errors import Changed, Gone, Offline, Reauth, Reject, Restart, Retry, Verdict
from dumbwaiter.model import MIB, Receipt
from dumbwaiter.net.abort import Abort
from dumbwaiter.transports.nos import CHUNK, DOUBTS, STUCK, Checkpoint
from dumbwaiter.wire.message import Reply, Request
from dumbwaiter_sandbox.netease import nos_token
from program import Vendors
from sending import Sender

Make = Callable[..., Sender]
SIZE = 9 * MIB  # three chunks


def content(size: int = SIZE) -> bytes:
    return os.urandom(size)


def stored(vendors: Vendors, receipt: Receipt) -> bytes:
    return (Path(vendors.sandbox.data) / "objects" / receipt.facts["bucket"] / receipt.key).read_bytes()


def puts(vendors: Vendors) -> list[dict[str, Any]]:
    return vendors.log("put")


def asked(vendors: Vendors) -> list[dict[str, Any]]:
    """The questions that nodes got; VOD has a query of its own."""
    return [one for one in vendors.log("query") if one["service"] != "vod"]


def received(vendors: Vendors) -> int:
    return sum(one["received"] for one in puts(vendors))


def point(one: Sender) -> Checkpoint:
    assert one.checkpoint is not None
    return msgspec.json.decode(one.checkpoint, type=Checkpoint)


# The plain way


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1])
def test_only_the_last_request_completes(vendors: Vendors, sender: Make, size: int) -> None:
    data = content(size)
    receipt = sender("netease", data).attempt()
    assert stored(vendors, receipt) == data
    requests = puts(vendors)
    assert [one["complete"] for one in requests] == [False] * (len(requests) - 1) + [True]
    assert [one["offset"] for one in requests] == list(range(0, max(size, 1), CHUNK))
    assert received(vendors) == size
    assert asked(vendors) == []


def test_each_chunk_carries_the_context_of_the_answer_before(vendors: Vendors, sender: Make) -> None:
    vendors.options(rotate_context_every=1)
    one = sender("netease", content())
    one.attempt()
    contexts = [request["context"] for request in puts(vendors)]
    assert contexts[0] == ""
    assert len(set(contexts)) == 3
    assert [msgspec.json.decode(text, type=Checkpoint).context for text, *_ in one.saved] == contexts[1:]


def test_a_whole_file_of_a_mebibyte_is_compared_by_md5_and_a_larger_one_is_not(vendors: Vendors, sender: Make) -> None:
    assert sender("netease", content(MIB)).attempt().verified == "md5"
    assert sender("netease", content(MIB + 1)).attempt().verified == ""
    headers = [request["headers"].get("content-md5") for request in puts(vendors)]
    assert [header is not None for header in headers] == [True, False]


def test_the_token_travels_in_its_header_and_nowhere_else(vendors: Vendors, sender: Make) -> None:
    sender("netease", content()).attempt()
    for request in puts(vendors):
        assert request["headers"]["x-nos-token"] == "***"  # as the vendor's log hides it
        assert "UPLOAD" not in request["target"]


@pytest.mark.parametrize(
    "name",
    [
        "a b.mov",
        "测试 电影.mov",
        "50%.mov",
        "plus+sign.mov",
        "q?#&=.mov",
        "raw\udcff.mov",
        "🎬.mov",
        "no suffix",
        ".hidden",
    ],
)
def test_a_file_of_any_name_arrives(vendors: Vendors, sender: Make, name: str) -> None:
    data = content(100)
    assert stored(vendors, sender("netease", data, name).attempt()) == data


@pytest.mark.parametrize("name", ["a/b 测试.txt", "per%cent", "plus+sign", "a%2Fb", "a//b", "/lead", "q?#&"])
def test_an_object_keeps_its_exact_name(vendors: Vendors, sender: Make, name: str) -> None:
    """VOD gives names of its own; a token for any other name is taken as well."""
    one = sender("netease", content(100))
    grant = one.obtain()
    account = vendors.sandbox.accounts["netease"]
    token = nos_token.mint(
        account["access_key"],
        account["secret_key"],
        {"Bucket": account["bucket"], "Object": name, "Expires": 4102329600},
    )
    ticket = msgspec.structs.replace(grant.ticket, object=name, token=token)
    one.grant = msgspec.structs.replace(grant, ticket=ticket, key=name)
    assert one.attempt().key == name
    assert name in {entry["key"] for entry in vendors.http.get("/_sandbox/objects").json()}


# Answers that differ

TOLERATED: list[dict[str, Any]] = [
    {"request_id": "requestID"},
    {"offset_as_text": True},
    {"final_context": "null"},
    {"final_context": "absent"},
    {"final_context": "empty"},
    {"callback_form": "base64"},
    {"context_bound_to_token": True},
    {"rewrite": True},
    {"md5_mode": "off"},
    {"keep_partial": True},
]


@pytest.mark.parametrize("switch", TOLERATED, ids=str)
def test_a_variant_of_the_answers_is_understood(vendors: Vendors, sender: Make, switch: dict[str, Any]) -> None:
    vendors.options(**switch)
    for size in (0, 100, SIZE):
        data = content(size)
        assert stored(vendors, sender("netease", data).attempt()) == data


def test_a_node_that_takes_less_is_sent_the_rest_and_nothing_twice(vendors: Vendors, sender: Make) -> None:
    vendors.options(max_accept=3 * MIB)
    data = content()
    one = sender("netease", data)
    assert stored(vendors, one.attempt()) == data
    assert [request["offset"] for request in puts(vendors)] == [0, 3 * MIB, 6 * MIB]
    assert [sent for _, sent, _, _ in one.saved] == [3 * MIB, 6 * MIB]


def test_a_node_whose_offset_goes_to_and_fro_is_left(vendors: Vendors, sender: Make) -> None:
    vendors.faults("seed=1," + ",".join(f"nos.put:backwards@{number}" for number in range(2, 40, 2)))
    one = sender("netease", content())
    assert str(one.verdict()) == "NetEase takes the bytes but does not get on"
    vendors.faults("")
    assert len(stored(vendors, one.until_done())) == SIZE


@pytest.mark.parametrize("size", [1, 2, 1000, CHUNK, SIZE])
def test_short_answers_at_random_lead_to_the_end(vendors: Vendors, sender: Make, size: int) -> None:
    vendors.faults("seed=3,nos.put:short%60")
    data = content(size)
    assert stored(vendors, sender("netease", data).until_done()) == data


def test_a_node_that_never_gets_on_is_left_after_three_answers(vendors: Vendors, sender: Make) -> None:
    vendors.faults("nos.put:noprogress@2x100")
    one = sender("netease", content())
    verdict = one.verdict()
    assert isinstance(verdict, Retry)
    assert str(verdict) == "NetEase takes the bytes but does not get on"
    assert len(puts(vendors)) == 1 + STUCK
    vendors.faults("")
    assert len(stored(vendors, one.until_done())) == SIZE


def test_an_offset_that_goes_back_is_obeyed(vendors: Vendors, sender: Make) -> None:
    vendors.faults("seed=1,nos.put:backwards@2")
    data = content()
    one = sender("netease", data)
    assert stored(vendors, one.attempt()) == data
    offsets = [request["offset"] for request in puts(vendors)]
    assert offsets[:2] == [0, CHUNK]
    assert offsets[2] < CHUNK
    assert sum(again for *_, again in one.saved) > 0


def test_an_offset_that_goes_back_for_ever_is_given_up(vendors: Vendors, sender: Make) -> None:
    vendors.faults("nos.put:backwards")
    assert isinstance(sender("netease", content()).verdict(), Retry | Restart)


@pytest.mark.parametrize("fault", ["nos.put:beyond@2", "nos.put:beyond@1", "nos.query:beyond"])
def test_an_offset_beyond_what_was_sent_is_a_new_start(vendors: Vendors, sender: Make, fault: str) -> None:
    data = content()
    one = sender("netease", data)
    vendors.faults(fault + (",nos.put:cut@2" if "query" in fault else ""))
    verdict = one.verdict()
    assert type(verdict) is Restart
    assert ("claims to have more" in str(verdict)) is ("put:beyond" in fault)
    vendors.faults("")
    assert stored(vendors, one.until_done()) == data


def test_a_node_that_claims_more_than_the_file_holds_is_no_place_to_go_on_from(sender: Make) -> None:
    assert [type(one) for one in answered(sender, {"offset": SIZE + 1})] == [Restart, Restart]


@pytest.mark.parametrize("answer", [{}, {"offset": -1}, {"context": "c"}])
def test_an_answer_that_tells_no_place_is_trouble_that_passes(sender: Make, answer: dict[str, Any]) -> None:
    verdicts = answered(sender, answer)
    assert [type(one) for one in verdicts] == [Retry, Retry]
    assert {str(one) for one in verdicts} == {"NetEase's answer holds no offset"}


def answered(sender: Make, answer: dict[str, Any]) -> list[Verdict]:
    """Returns what comes of a node that answers so: to a first chunk, and to who asks where it is."""
    body = msgspec.json.encode(answer)
    one = sender("netease", content())
    verdicts = []
    for checkpoint in (None, msgspec.json.encode(Checkpoint(CHUNK, "context")).decode()):
        one.checkpoint = checkpoint
        with peer.Peer(peer.echo([], peer.answer(body))) as node:
            grant = one.obtain()
            one.grant = msgspec.structs.replace(grant, ticket=msgspec.structs.replace(grant.ticket, nodes=(node.url,)))
            verdicts.append(one.verdict())
    return verdicts


# Breaks


def test_a_break_costs_one_chunk_at_most(vendors: Vendors, sender: Make) -> None:
    for fault in ("cut", "cut-within", "cut-after", "cut-reply", "500", "html", "empty"):
        vendors.http.delete("/_sandbox/log")
        vendors.faults(f"nos.put:{fault}@2")
        data = content()
        receipt = sender("netease", data).attempt()  # the other node takes over within the attempt
        assert stored(vendors, receipt) == data
        assert received(vendors) - SIZE <= CHUNK
        assert len(asked(vendors)) == 1


def test_a_chunk_whose_answer_was_lost_is_not_sent_again(vendors: Vendors, sender: Make) -> None:
    vendors.faults("nos.put:cut-after@2")
    sender("netease", content()).attempt()
    assert [request["offset"] for request in puts(vendors)] == [0, CHUNK, 2 * CHUNK]
    assert received(vendors) == SIZE


def test_what_the_node_kept_of_a_broken_chunk_is_not_sent_again(vendors: Vendors, sender: Make) -> None:
    vendors.options(keep_partial=True)
    vendors.faults("seed=5,nos.put:cut-within@2")
    data = content()
    assert stored(vendors, sender("netease", data).attempt()) == data
    offsets = [request["offset"] for request in puts(vendors)]
    assert CHUNK < offsets[2] < 2 * CHUNK


def test_the_next_node_goes_on_with_the_same_context(vendors: Vendors, sender: Make) -> None:
    vendors.faults("nos1.put:500@2")
    sender("netease", content()).attempt()
    requests = puts(vendors)
    assert [request["service"] for request in requests] == ["nos1", "nos1", "nos2", "nos2"]
    assert requests[2]["context"] == requests[3]["context"] != ""


@pytest.mark.parametrize("fault", ["down", "503", "cut-after"])
def test_a_node_that_fails_is_passed_over_and_then_goes_last(vendors: Vendors, sender: Make, fault: str) -> None:
    vendors.faults(f"nos1.*:{fault}")
    one = sender("netease", content())
    one.attempt()
    assert {request["service"] for request in puts(vendors) if request["status"] == 200} == {"nos2"}
    grant = one.obtain()
    assert grant.ticket.nodes[0] == vendors.sandbox.urls["nos1"]
    assert one.http.order(grant.ticket.nodes)[-1] == vendors.sandbox.urls["nos1"]


def test_when_all_nodes_are_down_it_waits_and_goes_on_where_it_was(vendors: Vendors, sender: Make) -> None:
    data = content()
    one = sender("netease", data)
    one.on_save = lambda: vendors.faults("nos.*:down") if len(one.saved) == 1 else None
    verdict = one.verdict()
    assert isinstance(verdict, Retry)
    assert "cannot be reached (connection refused)" in str(verdict) or "broke" in str(verdict)
    assert point(one).offset == CHUNK
    vendors.faults("")
    assert stored(vendors, one.until_done()) == data
    assert received(vendors) <= SIZE + CHUNK


def test_a_redirect_is_not_followed_with_the_token(vendors: Vendors, sender: Make) -> None:
    vendors.faults("nos.put:302")
    verdict = sender("netease", content(100)).verdict()
    assert isinstance(verdict, Retry)
    assert str(verdict) == "NetEase's upload node answers 302"


def test_a_node_may_ask_to_wait(vendors: Vendors, sender: Make) -> None:
    for status, kind in ((500, Retry), (502, Retry), (503, Retry), (429, Retry), (408, Retry)):
        vendors.faults(f"nos.put:{status}")
        verdict = sender("netease", content(100)).verdict()
        assert isinstance(verdict, kind)
        assert str(status) in str(verdict)


@pytest.mark.parametrize("fault", ["html", "empty"])
def test_an_answer_that_is_none_leaves_the_outcome_open(vendors: Vendors, sender: Make, fault: str) -> None:
    vendors.faults(f"nos.put:{fault}")
    verdict = sender("netease", content()).verdict()
    assert isinstance(verdict, Retry)
    assert "not the expected JSON" in str(verdict)


# The token


@pytest.mark.parametrize("chunk", [1, 2, 3])
@pytest.mark.parametrize("fault", ["403", "expired"])
def test_a_refused_token_is_replaced_and_the_new_object_begins_anew(
    vendors: Vendors, sender: Make, chunk: int, fault: str
) -> None:
    """VOD gives no second token for an object: the old context is of no use."""
    vendors.faults(f"nos.put:{fault}@{chunk}")
    data = content()
    one = sender("netease", data)
    before = one.obtain().key
    verdict = one.verdict()
    assert type(verdict) is Reauth
    assert str(verdict).startswith("NetEase refuses the upload token")
    receipt = one.until_done()
    assert receipt.key != before
    assert stored(vendors, receipt) == data
    assert puts(vendors)[chunk]["offset"] == 0
    assert puts(vendors)[chunk]["context"] == ""


def test_a_token_that_expires_in_the_middle_is_replaced(vendors: Vendors, sender: Make) -> None:
    vendors.options(token_life=600)
    data = content()
    one = sender("netease", data)
    one.on_save = lambda: vendors.advance(700) if len(one.saved) == 1 else None
    assert type(one.verdict()) is Reauth
    assert stored(vendors, one.until_done()) == data


# The context


@pytest.mark.parametrize("fault", ["nos.put:lost-context@2", "nos.put:404@2"])
def test_a_context_that_is_lost_at_a_chunk_is_a_new_start_with_the_same_token(
    vendors: Vendors, sender: Make, fault: str
) -> None:
    vendors.faults(fault)
    data = content()
    one = sender("netease", data)
    key = one.obtain().key
    assert type(one.verdict()) is Restart
    receipt = one.until_done()
    assert receipt.key == key
    assert stored(vendors, receipt) == data
    assert len(vendors.log("init")) == 1


def test_a_chunk_that_is_all_of_the_file_and_unknown_is_a_new_start(vendors: Vendors, sender: Make) -> None:
    vendors.faults("nos.put:404@1")
    one = sender("netease", content(1000))
    assert str(one.verdict()) == "NetEase no longer knows this upload"
    assert one.checkpoint is None
    assert len(stored(vendors, one.attempt())) == 1000


def test_a_context_that_is_lost_at_the_query_is_a_new_start(vendors: Vendors, sender: Make) -> None:
    vendors.faults("nos.put:cut@2,nos.query:lost-context")
    one = sender("netease", content())
    verdict = one.verdict()
    assert type(verdict) is Restart
    assert str(verdict) == "NetEase no longer knows this upload"
    assert stored(vendors, one.until_done())


@pytest.mark.parametrize("status", [200, 302, 400, 403, 404, 413, 511])
def test_a_page_in_the_nodes_place_costs_nothing_of_the_upload(vendors: Vendors, sender: Make, status: int) -> None:
    """A hotel's portal answers every plain request, as it likes."""
    page = b"\r\n<!DOCTYPE html><html>Please sign in</html>"
    portal = b"HTTP/1.1 %d Portal\r\nContent-Length: %d\r\n\r\n%s" % (status, len(page), page)
    data = content()
    one = sender("netease", data)
    grant = one.obtain()
    for sent in (0, CHUNK):
        with peer.Peer(peer.echo([], portal)) as node:
            one.grant = msgspec.structs.replace(grant, ticket=msgspec.structs.replace(grant.ticket, nodes=(node.url,)))
            assert type(one.verdict()) in {Retry, Offline}
        if not sent:
            one.grant = grant
            vendors.faults("nos.put:cut@2,nos.query:cut")
            one.verdict()
            vendors.faults("")
            assert point(one).offset == CHUNK
    one.grant = grant
    assert stored(vendors, one.attempt()) == data
    assert [request["offset"] for request in puts(vendors) if request["status"] == 200] == [0, CHUNK, 2 * CHUNK]


def test_a_context_that_grew_too_old_is_a_new_start(vendors: Vendors, sender: Make) -> None:
    vendors.options(context_ttl=60)
    data = content()
    one = sender("netease", data)
    one.on_save = lambda: vendors.advance(100) if len(one.saved) == 1 else None
    assert type(one.verdict()) is Restart
    assert stored(vendors, one.until_done()) == data


@pytest.mark.parametrize("switch", [404, 400])
def test_a_context_of_another_object_is_a_new_start(vendors: Vendors, sender: Make, switch: int) -> None:
    """As after a crash between a new grant and its first chunk: the place is another object's."""
    vendors.options(unknown_context=switch)
    other = sender("netease", content())
    other.on_save = lambda: other.path.write_bytes(b"changed")  # it stops after its first chunk
    assert type(other.verdict()) is Changed
    data = content()
    one = sender("netease", data)
    one.checkpoint, one.sent = other.checkpoint, other.sent
    assert type(one.verdict()) is Restart
    assert stored(vendors, one.until_done()) == data


def test_a_place_that_is_refused_is_asked_for_once_and_then_left(vendors: Vendors, sender: Make) -> None:
    vendors.faults("nos.put:400@2")
    data = content()
    one = sender("netease", data)
    verdict = one.verdict()
    assert type(verdict) is Restart
    assert str(verdict) == "NetEase refuses to go on with this upload"
    assert len(asked(vendors)) == 1
    assert stored(vendors, one.until_done()) == data


def test_a_first_chunk_that_is_refused_is_the_files_fault(vendors: Vendors, sender: Make) -> None:
    vendors.faults("nos.put:400")
    verdict = sender("netease", content(100)).verdict()
    assert type(verdict) is Reject
    assert str(verdict).startswith("NetEase refuses the file: InvalidRequest InvalidRequest (request ")
    assert len(puts(vendors)) == 2


@pytest.mark.parametrize("size", [100, SIZE])
def test_a_first_chunk_that_is_refused_once_did_not_come_whole(vendors: Vendors, sender: Make, size: int) -> None:
    vendors.faults("nos.put:400@1")
    data = content(size)
    assert stored(vendors, sender("netease", data).attempt()) == data


# Resuming


def test_a_new_process_asks_and_sends_only_what_is_missing(vendors: Vendors, sender: Make) -> None:
    data = content()
    one = sender("netease", data)
    vendors.faults("nos.*:500@2x50")
    assert isinstance(one.verdict(), Retry)
    vendors.faults("")
    vendors.http.delete("/_sandbox/log")
    one.restart()
    assert stored(vendors, one.attempt()) == data
    assert len(asked(vendors)) == 1
    assert received(vendors) == SIZE - CHUNK
    assert vendors.log("init") == []


def test_the_servers_offset_counts_and_ours_does_not(vendors: Vendors, sender: Make) -> None:
    data = content()
    one = sender("netease", data)
    vendors.faults("nos.*:500@2x50")
    assert isinstance(one.verdict(), Retry)
    vendors.faults("")
    one.checkpoint = msgspec.json.encode(Checkpoint(7 * MIB, point(one).context)).decode()
    assert stored(vendors, one.attempt()) == data


def test_a_first_chunk_without_an_answer_is_sent_again(vendors: Vendors, sender: Make) -> None:
    """There is no context to ask with."""
    vendors.faults("nos.put:cut-after@1")
    data = content()
    assert stored(vendors, sender("netease", data).attempt()) == data
    assert [request["offset"] for request in puts(vendors)] == [0, 0, CHUNK, 2 * CHUNK]
    assert asked(vendors) == []


@pytest.mark.parametrize("size", [100, CHUNK, CHUNK + 1, SIZE])
@pytest.mark.parametrize("fault", ["cut-after", "cut-reply"])
def test_a_lost_last_answer_is_no_second_upload(vendors: Vendors, sender: Make, size: int, fault: str) -> None:
    """The node has forgotten the finished upload as it forgets an expired one; VOD knows better."""
    vendors.faults(f"nos.complete:{fault}@1")
    data = content(size)
    one = sender("netease", data)
    receipt = one.until_done()
    assert stored(vendors, receipt) == data
    assert receipt.key == one.obtain().key
    assert len(vendors.http.get("/_sandbox/objects").json()) >= 1
    if size > CHUNK:
        assert received(vendors) == size
        assert len(asked(vendors)) == 1


def test_where_the_last_chunk_goes_from_is_in_the_journal_before_it_goes(
    vendors: Vendors, sender: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slow the journal is: after a kill a finished upload is told from a lost one."""
    one = sender("netease", content(3 * CHUNK))
    commits: list[tuple[Future[None], int]] = []
    there: list[int] = []

    def save(_checkpoint: str, sent: int, _more: int, _again: int) -> "Future[None]":
        commits.append((Future(), sent))
        threading.Timer(0.05, commits[-1][0].set_result, [None]).start()
        return commits[-1][0]

    def exchange(request: Request, abort: Abort) -> Reply:
        if "complete=true" in request.url:
            there.extend(sent for commit, sent in commits if commit.done())
        return real(request, abort)

    real = one.provider.exchange
    monkeypatch.setattr(one, "_save", save)
    monkeypatch.setattr(one.provider, "exchange", exchange)
    one.attempt()
    assert there[-1] == 2 * CHUNK


def test_an_end_that_comes_with_the_last_answer_does_not_cost_the_receipt(
    vendors: Vendors, sender: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier process sent is read again for the digest: before the last chunk goes, and not after it."""

    def exchange(request: Request, abort: Abort) -> Reply:
        reply = real(request, abort)
        if "complete=true" in request.url:
            abort()
        return reply

    data = content()
    one = sender("netease", data)
    vendors.faults("nos.put:cut@2,nos.query:cut")
    one.verdict()
    vendors.faults("")
    one.restart()
    real = one.provider.exchange
    monkeypatch.setattr(one.provider, "exchange", exchange)
    assert stored(vendors, one.attempt()) == data


def test_who_has_every_byte_and_refused_the_end_is_told_again_that_this_was_all(sender: Make) -> None:
    said: list[tuple[bool, int]] = []

    def script(connection: peer.Connection) -> None:
        while True:
            head, body = connection.request()
            line = head.split(b"\r\n")[0]
            last = b"complete=true" in line
            if line.startswith(b"POST"):
                said.append((last, len(body)))
            refused = last and bool(body)
            offset = int(line.partition(b"offset=")[2].partition(b"&")[0] or 0) + len(body)
            facts = {"errCode": "InvalidRequest"} if refused else {"offset": offset, "context": "c"}
            if line.startswith(b"GET"):
                facts = {"offset": 2 * CHUNK}
            answer = msgspec.json.encode(facts)
            status = b"400 Bad Request" if refused else b"200 OK"
            connection.send(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(answer), answer))

    one = sender("netease", content(2 * CHUNK))
    with peer.Peer(script) as node:
        grant = one.obtain()
        one.grant = msgspec.structs.replace(grant, ticket=msgspec.structs.replace(grant.ticket, nodes=(node.url,)))
        one.attempt()
    assert said == [(False, CHUNK), (True, CHUNK), (True, 0)]


def test_a_node_that_took_less_compared_no_md5_of_the_whole(vendors: Vendors, sender: Make) -> None:
    vendors.options(max_accept=600_000)
    assert sender("netease", content(MIB)).attempt().verified == ""


def test_a_place_at_the_very_end_is_completed_by_an_empty_chunk(vendors: Vendors, sender: Make) -> None:
    data = content(2 * CHUNK)
    one = sender("netease", data)
    one.on_save = lambda: None
    grant = one.obtain()
    # All bytes are at the node, and nobody said that this was all.
    base = f"{vendors.sandbox.urls['nos1']}/{grant.ticket.bucket}/{quote(grant.ticket.object, safe='')}"
    context, offset = "", 0
    for half in (data[:CHUNK], data[CHUNK:]):
        answer = vendors.http.post(
            f"{base}?offset={offset}&complete=false&version=1.0" + (f"&context={context}" if context else ""),
            content=half,
            headers={"x-nos-token": grant.ticket.token},
        ).json()
        context, offset = answer["context"], answer["offset"]
    one.checkpoint = msgspec.json.encode(Checkpoint(CHUNK, context)).decode()
    assert stored(vendors, one.attempt()) == data
    last = puts(vendors)[-1]
    assert (last["offset"], last["length"], last["complete"]) == (2 * CHUNK, 0, True)


# The last step in doubt


def test_a_failed_callback_is_cleared_up_by_looking_at_the_object(vendors: Vendors, sender: Make) -> None:
    vendors.faults("nos.put:520")
    data = content()
    one = sender("netease", data)
    receipt = one.until_done()
    assert stored(vendors, receipt) == data
    assert receipt.facts["callback"] == "failed"
    assert receipt.verified == "size"
    assert received(vendors) == SIZE


def test_a_callback_that_was_heard_after_all_is_confirmed_by_vod(vendors: Vendors, sender: Make) -> None:
    """The node could not hear VOD's answer: VOD has the video."""
    vendors.faults("nos.complete:cut-after@1")
    one = sender("netease", content())
    receipt = one.until_done()
    assert "callback" not in receipt.facts
    assert len(vendors.log("query")) == 2  # one at the node, one at VOD
    assert {entry["service"] for entry in vendors.log("query")} == {"nos2", "vod"}


def test_a_callback_that_failed_with_nothing_kept_is_a_new_start_in_the_end(vendors: Vendors, sender: Make) -> None:
    vendors.options(on_520="discarded")
    vendors.faults("nos.put:520@1")
    data = content()
    one = sender("netease", data)
    waits = []
    for _ in range(DOUBTS):
        verdict = one.verdict()
        assert isinstance(verdict, Retry)
        assert str(verdict).startswith("NetEase's upload node answers 520: ")
        waits.append(verdict.after)
        one.restart()  # the doubt is journalled, too
    assert waits == [1, 2, 4, 8, 16]
    assert type(one.verdict()) is Restart
    assert stored(vendors, one.until_done()) == data
    assert received(vendors) == 2 * SIZE


def test_an_object_that_vod_shows_late_is_waited_for(vendors: Vendors, sender: Make) -> None:
    vendors.options(register_delay=60, signed_downloads=True)  # neither VOD nor a look at it tell anything yet
    vendors.faults("nos.complete:cut-after@1")
    data = content()
    one = sender("netease", data)
    assert isinstance(one.verdict(), Retry)
    assert point(one).doubts == 1
    assert isinstance(one.verdict(), Retry)
    vendors.advance(61)
    receipt = one.attempt()
    assert stored(vendors, receipt) == data
    assert received(vendors) == SIZE


# The file


@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize("change", ["append", "truncate", "rewrite", "touch"])
def test_two_versions_are_never_mixed(vendors: Vendors, sender: Make, chunk: int, change: str) -> None:
    one = sender("netease", content())

    def meddle() -> None:
        if len(one.saved) != chunk:
            return
        if change == "append":
            with one.path.open("ab") as file:
                file.write(b"more")
        elif change == "truncate":
            os.truncate(one.path, 5 * MIB)
        elif change == "rewrite":
            one.path.write_bytes(content())
        else:
            os.utime(one.path, ns=(1, 1))

    one.on_save = meddle
    objects = len(vendors.http.get("/_sandbox/objects").json())
    verdict = one.verdict()
    assert type(verdict) is Changed
    assert not isinstance(verdict, Gone)
    assert len(vendors.http.get("/_sandbox/objects").json()) == objects


# What is said


def test_no_sentence_holds_a_secret_or_a_token(vendors: Vendors, sender: Make) -> None:
    secrets = [value for name, value in vendors.sandbox.accounts["netease"].items() if "secret" in name]
    verdicts: list[Verdict] = []
    vendors.options(on_520="discarded")
    for fault in (
        "400",
        "401",
        "403",
        "404",
        "405",
        "413",
        "500",
        "520",
        "302",
        "cut",
        "html",
        "empty",
        "noprogress",
        "beyond",
    ):
        vendors.faults(f"nos.put:{fault}" if fault == "520" else f"nos.put:{fault}@2x100")
        one = sender("netease", content(2 * CHUNK + 1))
        ticket = one.obtain().ticket
        verdicts.append(one.verdict())
        for text in (str(verdicts[-1]), repr(verdicts[-1]), repr(verdicts[-1].__context__)):
            assert not any(secret in text for secret in secrets)
            assert ticket.token not in text
            assert ticket.token.rpartition(":")[2] not in text
    assert {type(verdict) for verdict in verdicts} >= {Retry, Reauth, Restart}


def test_a_nodes_words_cannot_act_on_a_terminal(sender: Make) -> None:
    body = b'{"errCode":"\\u001b[2J","errMsg":"' + b"long " * 200 + b'"}'
    answer = b"HTTP/1.1 413 X\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
    with peer.Peer(peer.echo([], answer)) as node:
        one = sender("netease", content(100))
        grant = one.obtain()
        one.grant = msgspec.structs.replace(grant, ticket=msgspec.structs.replace(grant.ticket, nodes=(node.url,)))
        verdict = one.verdict()
    assert type(verdict) is Reject
    assert "\x1b" not in str(verdict)
    assert len(str(verdict)) < 400


@pytest.mark.parametrize("member", ["requestId", "requestID"])
@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (400, "NetEase refuses the file: busy (request be82)"),
        (403, "NetEase refuses the upload token: busy (request be82)"),
        (500, "NetEase's upload node answers 500: busy (request be82)"),
        (520, "NetEase's upload node answers 520: busy (request be82)"),
    ],
)
def test_a_nodes_words_and_the_number_that_its_support_asks_for_are_told(
    vendors: Vendors, sender: Make, member: str, status: int, sentence: str
) -> None:
    body = msgspec.json.encode({member: "be82", "errMsg": "busy"})
    answer = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    with peer.Peer(peer.echo([], answer)) as node:
        one = sender("netease", content(100))
        grant = one.obtain()
        one.grant = msgspec.structs.replace(grant, ticket=msgspec.structs.replace(grant.ticket, nodes=(node.url,)))
        assert str(one.verdict()) == sentence
