"""CareyShop's own form beyond the contract: what the shop says of the bytes that reached it."""

import os
from collections.abc import Callable

import msgspec
import pytest

from dumbwaiter.errors import Blocked, Reauth, Reject, Retry
from dumbwaiter.model import MIB
from dumbwaiter.net.abort import Abort
from dumbwaiter.wire.message import Reply, Request
from dumbwaiter_sandbox import careyshop
from program import Vendors
from sending import Sender

Make = Callable[..., Sender]


@pytest.mark.parametrize(("name", "value"), [("hash", "0" * 40), ("size", 1)])
def test_a_shop_that_has_other_bytes_than_were_sent_is_not_done(
    vendors: Vendors, sender: Make, monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    def struck(request: Request, abort: Abort) -> Reply:
        reply = exchange(request, abort)
        told = msgspec.json.decode(reply.body)
        told["data"][0][name] = value
        return msgspec.structs.replace(reply, body=msgspec.json.encode(told))

    one = sender("careyshop", os.urandom(MIB), "photo.jpg")
    exchange = one.provider.exchange
    monkeypatch.setattr(one.provider, "exchange", struck)
    verdict = one.verdict()
    assert type(verdict) is Retry
    assert str(verdict) == "the shop received other bytes than were sent"


def test_a_shop_that_says_to_try_again_is_tried_again(vendors: Vendors, sender: Make) -> None:
    one = sender("careyshop", os.urandom(MIB), "photo.jpg")
    vendors.faults("careyshop.upload:inner-error@1")
    assert type(one.verdict()) is Retry
    assert one.attempt().verified == "sha1"
    assert len(vendors.log("upload")) == 2


def test_a_shop_that_its_owner_closed_is_waited_for_and_gets_the_file_once_it_opens(
    vendors: Vendors, sender: Make
) -> None:
    """It answers every call with its owner's own words: they are not about the file."""
    one = sender("careyshop", b"x", "photo.jpg")
    one.obtain()
    vendors.faults("careyshop.*:closed")
    for _ in range(2):
        verdict = one.verdict()
        assert type(verdict) is Retry
        assert str(verdict) == "the shop answers get.storage.list with 500 商城维护中"
    assert len(vendors.log("upload")) == 1
    vendors.faults("")
    assert one.attempt().verified == "sha1"


def test_a_file_that_is_refused_stops_no_account_that_may_not_list(vendors: Vendors, sender: Make) -> None:
    """The list is only asked whether the shop is open."""
    one = sender("careyshop", b"x", "photo.jpg")
    one.obtain()
    vendors.faults("careyshop.upload:closed,careyshop.list:no-permission")
    verdict = one.verdict()
    assert type(verdict) is Reject
    assert str(verdict) == "the shop refuses the file: 商城维护中"


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        ("app_secret", "the shop refuses the signature: check app_secret (sign错误)"),
        ("app_key", "the shop knows no such app_key, or has switched it off (appkey已禁用或不存在)"),
    ],
)
def test_an_account_that_the_form_is_the_first_to_be_refused_with_is_no_fault_of_the_file(
    vendors: Vendors, sender: Make, monkeypatch: pytest.MonkeyPatch, part: str, sentence: str
) -> None:
    """A shop's permission without an end outlives the secret that it was asked for with."""
    one = sender("careyshop", b"x", "photo.jpg")
    one.obtain()
    monkeypatch.setitem(careyshop.ACCOUNT, part, "87654321")
    with pytest.raises(Reauth) as refused:
        one.attempt()
    with pytest.raises(Blocked) as blocked:
        one.take(refused.value)
    assert str(blocked.value) == sentence
