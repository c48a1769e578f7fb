"""CareyShop's own form beyond the contract: what the shop says of the bytes that reached it."""

import os
from collections.abc import Callable

import msgspec
import pytest

from dumbwaiter.errors import Retry
from dumbwaiter.model import MIB
from dumbwaiter.net.abort import Abort
from dumbwaiter.wire.message import Reply, Request
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
