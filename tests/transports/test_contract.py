"""What every transport promises, against the vendors on loopback: one row each.

A new transport is a row more: the provider of the sandbox's configuration that leads to it, a file's name, and sizes
that the vendor takes.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from dumbwaiter.errors import Changed, Reject, Verdict
from dumbwaiter.model import MIB, Secret
from dumbwaiter.transports import TRANSPORTS, choose
from program import Vendors
from sending import Sender

Make = Callable[..., Sender]


class Row(NamedTuple):
    provider: str
    name: str
    sizes: tuple[int, ...]  # the last one is sent in as many steps as the vendor knows


ROWS = {
    "nos": Row("netease", "film.mov", (0, 1, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 8 * MIB, 9 * MIB)),
    "put": Row("recipe", "film.mov", (0, 1, 5 * MIB)),
    "imagex": Row("jimeng", "photo.jpg", (1, 3 * MIB)),
    "oss_post": Row("careyshop-aliyun", "photo.jpg", (0, 1, MIB)),
    "oss_multipart": Row("careyshop-sts", "film.mov", (0, 1, 9 * MIB)),
    "careyshop_form": Row("careyshop", "photo.jpg", (1, MIB)),
    "qiniu_form": Row("jiandaoyun", "film.mov", (1, MIB, 4 * MIB)),
    "qiniu_resumable": Row("jiandaoyun", "film.mov", (4 * MIB + 1, 9 * MIB)),
}
ELSEWHERE = {
    "form": "no provider of the sandbox asks for it; see the recipes' own tests",
    "qiniu_form_large": "is the form of `qiniu_form`, where parts are refused; see Qiniu's own tests",
}
BREAKS = ("cut", "cut-within", "cut-after", "cut-reply", "503", "html", "empty")
STEPS = 5


def test_every_transport_has_a_row() -> None:
    assert {row.name for row in TRANSPORTS} == ROWS.keys() | ELSEWHERE.keys()


def there(vendors: Vendors, content: bytes) -> bool:
    """True if any vendor has an object of these bytes."""
    for path in (Path(vendors.sandbox.data) / "objects").rglob("*"):
        if path.is_file() and path.stat().st_size == len(content):
            with path.open("rb") as file:
                if file.read(64) == content[:64] and file.read() == content[64:]:
                    return True
    return False


@pytest.mark.parametrize("kind", ROWS)
def test_a_file_of_every_size_arrives_byte_for_byte(kind: str, vendors: Vendors, sender: Make) -> None:
    row = ROWS[kind]
    for size in row.sizes:
        content = os.urandom(size)
        one = sender(row.provider, content, row.name)
        receipt = one.attempt()
        assert one.transport is not None
        assert one.transport.name == kind
        assert receipt.key
        assert there(vendors, content)


@pytest.mark.parametrize("kind", ROWS)
def test_a_file_that_is_another_version_by_now_is_not_sent(kind: str, vendors: Vendors, sender: Make) -> None:
    row = ROWS[kind]
    old, new = (os.urandom(row.sizes[-1]) for _ in range(2))
    one = sender(row.provider, old, row.name)
    one.obtain()
    one.path.write_bytes(new)
    assert type(one.verdict()) is Changed
    assert not there(vendors, old)
    assert not there(vendors, new)


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("fault", BREAKS)
def test_whichever_exchange_breaks_the_file_arrives_once_and_whole(
    kind: str, fault: str, vendors: Vendors, sender: Make
) -> None:
    if (kind, fault) == ("put", "empty"):
        return  # an empty 200 is how many servers say that they have it
    row = ROWS[kind]
    for step in range(1, STEPS + 1):
        content = os.urandom(min(row.sizes[-1], 5 * MIB))
        vendors.faults(f"*:{fault}@{step}")
        one = sender(row.provider, content, row.name)
        one.until_done()
        assert there(vendors, content)
        no_secret(vendors, one, [str(verdict) for verdict in one.verdicts])


@pytest.mark.parametrize(
    "kind", [row.name for row in TRANSPORTS if row.name in ROWS and row.checkpoint.__struct_fields__]
)
def test_a_new_process_goes_on_from_every_checkpoint(kind: str, vendors: Vendors, sender: Make) -> None:
    """One file is ended right after its first save, the next one after its second, and so on."""
    row = ROWS[kind]

    class Killed(Exception):
        """The process is no more."""

    for turn in range(1, 20):
        content = os.urandom(row.sizes[-1])
        one = sender(row.provider, content, row.name)

        def kill(one: Sender = one, turn: int = turn) -> None:
            if len(one.saved) == turn:
                raise Killed

        one.on_save = kill
        try:
            one.attempt()
        except Killed:
            one.restart()
            one.until_done()
            assert there(vendors, content)
        else:
            break
    assert 1 < turn < 19


@pytest.mark.parametrize("kind", ROWS)
def test_a_refused_file_is_a_verdict_with_words(kind: str, vendors: Vendors, sender: Make) -> None:
    row = ROWS[kind]
    one = sender(row.provider, os.urandom(row.sizes[-1]), row.name)
    one.obtain()
    vendors.faults("*:400")
    verdict = one.verdict()
    assert isinstance(verdict, Verdict)
    assert len(str(verdict)) > 10
    no_secret(vendors, one, [str(verdict)])


def test_a_ticket_that_no_transport_takes_is_refused_with_words() -> None:
    with pytest.raises(Reject, match="no way to upload 5 bytes with a int"):
        choose(7, 5)


def no_secret(vendors: Vendors, one: Sender, texts: list[str]) -> None:
    """Neither the account's secrets nor the ticket's may stand in a sentence."""
    secrets = [
        value
        for account in vendors.sandbox.accounts.values()
        for name, value in account.items()
        if any(word in name for word in ("secret", "password", "token"))
    ]
    if one.grant is not None:
        secrets += _secrets_of(msgspec.to_builtins(one.grant.ticket, enc_hook=Secret.reveal))
    for text in texts:
        for secret in secrets:
            assert str(secret) not in text


def _secrets_of(ticket: Any) -> list[str]:
    if not isinstance(ticket, dict):
        return []
    names = ("token", "secret", "session", "auth", "policy", "signature")
    return [
        value for name, value in ticket.items() if isinstance(value, str) and value and any(n in name for n in names)
    ]
