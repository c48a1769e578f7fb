"""What a store answers that only a recipe describes."""

import pytest

from dumbwaiter.errors import Retry
from dumbwaiter.wire.message import Reply
from dumbwaiter.wire.store_replies import asks_again, raise_for_status


@pytest.mark.parametrize(
    ("status", "code"), [(400, "RequestTimeout"), (400, "BadDigest"), (409, "ConditionalRequestConflict")]
)
def test_a_store_that_wants_the_same_again_refuses_no_file(status: int, code: str) -> None:
    reply = Reply(status, body=f"<Error><Code>{code}</Code></Error>".encode())
    assert asks_again(reply)
    with pytest.raises(Retry, match=code):
        raise_for_status(reply)
