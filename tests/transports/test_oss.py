"""Aliyun OSS beyond the contract: signatures, callbacks, checksums, and resuming with a key that may only put."""

import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dumbwaiter.errors import Blocked, Reject, Restart, Retry, Verdict
from dumbwaiter.jobs.threads import drive
from dumbwaiter.model import MIB
from dumbwaiter.net.abort import Abort
from dumbwaiter.tickets import OssPostTicket
from dumbwaiter.transports import oss_post
from dumbwaiter.wire.message import FileSlice, Reply, Request
from dumbwaiter.wire.oss_replies import verdict
from program import Vendors
from sending import Sender

Make = Callable[..., Sender]
SMALL, LARGE = MIB, 9 * MIB
PARTS = 3


class Killed(Exception):
    """The process is no more."""


def sts(sender: Make, size: int, **changes: Any) -> Sender:
    return sender("careyshop-sts", os.urandom(size), "film.mov", changes=changes)


def form(sender: Make) -> Sender:
    return sender("careyshop-aliyun", os.urandom(SMALL), "photo.jpg")


def stored(vendors: Vendors, one: Sender) -> int:
    """How many objects hold the sender's file."""
    content = one.path.read_bytes()
    folder = Path(vendors.sandbox.data) / "objects"
    return sum(path.is_file() and path.read_bytes() == content for path in folder.rglob("*"))


def kill_after(one: Sender, saves: int) -> None:
    """Ends an attempt right after so many saves, as a new process finds it."""

    def kill() -> None:
        if len(one.saved) == saves:
            raise Killed

    one.on_save = kill
    with pytest.raises(Killed):
        one.attempt()
    one.on_save = lambda: None
    one.restart()


# Signatures


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_bucket_that_takes_version_4_only_is_sent_that(size: int, vendors: Vendors, sender: Make) -> None:
    vendors.options("oss", v1=False)
    one = sts(sender, size, signature="v4")
    assert one.attempt().verified == "crc64"
    assert stored(vendors, one) == 1


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_where_version_1_is_configured_a_bucket_that_refuses_it_blocks(
    size: int, vendors: Vendors, sender: Make
) -> None:
    vendors.options("oss", v1=False)
    verdict = sts(sender, size).verdict()
    assert type(verdict) is Blocked
    assert "version 4 only" in str(verdict)


def test_version_1_is_the_default(vendors: Vendors, sender: Make) -> None:
    sts(sender, SMALL).attempt()
    (put,) = vendors.log("put")
    assert "x-oss-content-sha256" not in put["headers"]


# Callbacks


def test_the_request_that_makes_the_object_carries_the_callback_and_no_other(vendors: Vendors, sender: Make) -> None:
    sts(sender, SMALL).attempt()
    sts(sender, LARGE).attempt()
    oss = [entry for entry in vendors.log() if entry["service"] == "oss"]
    carrying = {entry["call"] for entry in oss if {"x-oss-callback", "x-oss-callback-var"} <= entry["headers"].keys()}
    assert carrying == {"put", "complete"}
    assert {entry["call"] for entry in oss} == {"put", "begin", "part", "complete"}


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_what_the_callback_was_answered_is_kept(size: int, vendors: Vendors, sender: Make) -> None:
    receipt = sts(sender, size).attempt()
    assert '"status":200' in receipt.facts["answer"].replace(" ", "")


# Checksums


@pytest.mark.parametrize(("call", "size"), [("put", SMALL), ("part", LARGE), ("complete", LARGE)])
def test_a_checksum_that_differs_is_trouble_that_passes_and_the_file_is_sent_again(
    call: str, size: int, vendors: Vendors, sender: Make
) -> None:
    vendors.faults(f"oss.{call}:bad-crc@1")
    one = sts(sender, size)
    verdict = one.verdict()
    assert isinstance(verdict, Retry)
    assert "other bytes than were sent" in str(verdict)
    assert one.until_done().verified == "crc64"
    assert stored(vendors, one) == 1


def test_a_form_whose_checksum_differs_is_sent_again(vendors: Vendors, sender: Make) -> None:
    vendors.faults("oss.post:bad-crc@1")
    one = form(sender)
    assert isinstance(one.verdict(), Retry)
    assert one.until_done().verified == "crc64"
    assert stored(vendors, one) == 1


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_an_oss_that_tells_no_checksum_leaves_the_file_unverified(size: int, vendors: Vendors, sender: Make) -> None:
    vendors.options("oss", crc=False)
    one = sts(sender, size)
    assert one.attempt().verified == ""
    assert stored(vendors, one) == 1


# Going on


def test_a_new_process_sends_what_the_journal_lacks_and_asks_for_no_list(vendors: Vendors, sender: Make) -> None:
    one = sts(sender, 33 * MIB)
    kill_after(one, 1 + 2)  # the upload, and two of its parts
    vendors.http.delete("/_sandbox/log")
    left = 9 - len(json.loads(one.checkpoint or "")["parts"])
    one.until_done()
    assert left > 0
    assert len(vendors.log("part")) == left
    assert [vendors.log(call) for call in ("list", "begin", "abort")] == [[], [], []]
    assert stored(vendors, one) == 1


@pytest.mark.parametrize("damage", [{"part": 0}, {"part": -1}, {"parts": {"4": ["x", 1]}}, {"parts": {"-1": ["x", 1]}}])
def test_a_journal_that_knows_of_parts_that_the_file_does_not_have_is_not_believed(
    damage: dict[str, Any], vendors: Vendors, sender: Make
) -> None:
    one = sts(sender, LARGE)
    kill_after(one, 1)
    one.checkpoint = json.dumps(json.loads(one.checkpoint or "") | damage)
    one.attempt()
    assert len(vendors.log("begin")) == 2
    assert stored(vendors, one) == 1


def test_a_lost_answer_to_the_end_is_cleared_up_by_looking_at_the_object(vendors: Vendors, sender: Make) -> None:
    one = sts(sender, LARGE)
    vendors.faults("oss.complete:cut-after@1")
    assert isinstance(one.verdict(), Retry)
    receipt = one.attempt()
    assert receipt.verified == "crc64"
    assert "callback" not in receipt.facts  # the shop's list has it
    assert len(vendors.log("part")) == PARTS
    assert stored(vendors, one) == 1


def test_another_object_of_the_same_size_is_not_taken_for_the_one_that_was_joined(
    vendors: Vendors, sender: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replaced(request: Request, abort: Abort) -> Reply:
        reply = exchange(request, abort)
        other = {"x-oss-hash-crc64ecma": "1"} if request.what == "look" else {}
        return msgspec.structs.replace(reply, headers={**reply.headers, **other})

    one = sts(sender, LARGE)
    vendors.faults("oss.complete:cut-after@1,careyshop.callback:500@1")
    assert isinstance(one.verdict(), Retry)
    exchange = one.provider.exchange
    monkeypatch.setattr(one.provider, "exchange", replaced)
    assert type(one.verdict()) is Restart
    assert one.until_done().verified == "crc64"
    assert stored(vendors, one) == 1


def test_a_part_whose_tag_got_lost_on_the_way_is_named_by_its_digest(
    vendors: Vendors, sender: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nameless(request: Request, abort: Abort) -> Reply:
        reply = exchange(request, abort)
        headers = {name: value for name, value in reply.headers.items() if name != "etag" or request.what != "part"}
        return msgspec.structs.replace(reply, headers=headers)

    one = sts(sender, LARGE)
    exchange = one.provider.exchange
    monkeypatch.setattr(one.provider, "exchange", nameless)
    assert one.attempt().verified == "crc64"
    assert stored(vendors, one) == 1


def test_an_object_that_the_shops_list_lacks_is_told_as_such(vendors: Vendors, sender: Make) -> None:
    one = sts(sender, LARGE)
    vendors.faults("oss.complete:cut-after@1,careyshop.callback:500@1")
    assert isinstance(one.verdict(), Retry)
    receipt = one.attempt()
    assert receipt.verified == "crc64"
    assert receipt.facts["callback"] == "unknown"
    assert stored(vendors, one) == 1


def test_where_nobody_may_look_the_file_is_sent_again_to_the_same_key(vendors: Vendors, sender: Make) -> None:
    vendors.options("oss", public_read=False)
    one = sts(sender, LARGE)
    vendors.faults("oss.complete:cut-after@1,careyshop.callback:500@1")  # else the shop's list would show it
    assert isinstance(one.verdict(), Retry)
    assert type(one.verdict()) is Restart
    assert one.until_done().verified == "crc64"
    assert stored(vendors, one) == 1


def test_where_nobody_may_look_the_shops_list_tells(vendors: Vendors, sender: Make) -> None:
    vendors.options("oss", public_read=False)
    one = sts(sender, LARGE)
    vendors.faults("oss.complete:cut-after@1")
    assert isinstance(one.verdict(), Retry)
    assert one.until_done().verified == "size"
    assert len(vendors.log("begin")) == 1
    assert stored(vendors, one) == 1


@pytest.mark.parametrize(("fault", "kind"), [("no-upload", Restart), ("no-part", Restart), ("late", Retry)])
def test_an_upload_that_oss_cannot_join_begins_again(
    fault: str, kind: type[Verdict], vendors: Vendors, sender: Make
) -> None:
    one = sts(sender, LARGE)
    vendors.faults(f"oss.complete:{fault}@1")
    assert isinstance(one.verdict(), kind)
    one.until_done()
    assert stored(vendors, one) == 1


def test_credentials_that_end_between_two_parts_are_replaced_and_the_upload_goes_on(
    vendors: Vendors, sender: Make
) -> None:
    vendors.faults("oss.part:expired@2")
    one = sts(sender, LARGE)
    one.until_done()
    assert one.kinds() == ["Reauth"]
    assert len(vendors.log("begin")) == 1
    assert stored(vendors, one) == 1


# Forms


def test_a_policy_that_excludes_the_file_refuses_it(vendors: Vendors, sender: Make) -> None:
    vendors.options("careyshop", file_size=1)
    one = sender("careyshop-aliyun", os.urandom(SMALL + 1), "photo.jpg")
    with pytest.raises(Reject, match=f"{SMALL + 1} bytes; the provider takes {SMALL} at most"):
        one.obtain()
    assert vendors.log("post") == []


# What an answer means


@pytest.mark.parametrize(("status", "kind"), [(200, Retry), (203, Retry), (400, Reject), (500, Retry)])
def test_an_error_within_a_success_is_trouble_that_passes(status: int, kind: type[Verdict]) -> None:
    assert type(verdict(Reply(status, {}, b"<Error><Code>InternalError</Code></Error>"))) is kind


# Whose answer it is


class Answered:
    """A small file on its way, and the one answer that it gets."""

    key, size, name, mime, seed = "k", 5, "a", "text/plain", "seed"

    def __init__(self, callback: str, reply: Reply) -> None:
        self.ticket = OssPostTicket("http://oss.example/", (("key", "k"), ("callback", callback)))
        self._reply = reply

    async def read(self, offset: int, length: int) -> FileSlice:
        return FileSlice(-1, offset, length, b"bytes")

    async def call(self, _request: Request) -> Reply:
        return self._reply


@pytest.mark.parametrize(
    ("callback", "headers", "body", "believed"),
    [
        ("c", {}, b'{"status": 200}', True),  # the shop's word, which OSS handed on
        ("c", {}, b"[]", False),
        ("c", {}, b"<html>", False),
        ("", {}, b'{"status": 200}', False),
        ("", {"etag": '"E"'}, b"", True),
        ("", {"x-oss-request-id": "1"}, b"", True),
    ],
)
def test_an_answer_is_oss_own_by_its_marks_or_by_its_callbacks(
    callback: str, headers: dict[str, str], body: bytes, believed: bool
) -> None:
    upload: Any = Answered(callback, Reply(200, headers, body))
    with nullcontext() if believed else pytest.raises(Retry, match="something other than OSS"):
        assert drive(oss_post.send(upload)).key == "k"
