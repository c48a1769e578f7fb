"""What every transport promises, against the vendors on loopback.

A new transport is a row more: a provider that leads to it, a file's name, and where the vendor's parts end. A case that
cannot be with a transport stands in CANNOT with its reason, and is tried all the same: if it can be, that is a failure.
"""

import mimetypes
import os
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from dumbwaiter.errors import Changed, Reauth, Reject, Verdict
from dumbwaiter.model import MIB, Secret, Stamp
from dumbwaiter.transports import TRANSPORTS, choose
from program import Vendors
from sending import Sender

Make = Callable[..., Sender]
HOUR = 3600.0


class Row(NamedTuple):
    provider: str  # of the sandbox's configuration, or of the page of recipes
    name: str
    size: int  # of a file that is sent in as many steps as the vendor knows
    life: float  # seconds after which no permission is good any more
    edges: tuple[int, ...] = ()
    untold: str = ""  # the fault "it is stored, but who should hear of it does not answer"
    options: tuple[str, Mapping[str, Any]] = ("kodo", {})


ROWS = {
    "nos": Row(
        "netease", "film.mov", 9 * MIB, 31 * 24 * HOUR,
        (4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 8 * MIB), "nos.complete:520@1",
    ),
    "form": Row("forms", "film.mov", 5 * MIB, HOUR),
    "put": Row("recipe", "film.mov", 5 * MIB, HOUR),
    "imagex": Row("jimeng", "photo.jpg", 21 * MIB, 7 * HOUR, (20 * MIB, 20 * MIB + 1, 40 * MIB)),
    "oss_post": Row("careyshop-aliyun", "photo.jpg", MIB, 2 * HOUR, untold="oss.post:203@1"),
    "oss_multipart": Row(
        "careyshop-sts", "film.mov", 9 * MIB, 2 * HOUR,
        (4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 8 * MIB), "oss.complete:203@1",
    ),
    "careyshop_form": Row("careyshop", "photo.jpg", MIB, HOUR),
    "qiniu_form": Row(
        "jiandaoyun", "film.mov", 3 * MIB, 2 * HOUR,
        (4 * MIB - 1, 4 * MIB), "kodo.form:579@1",
        ("jiandaoyun", {"limits": False}),
    ),
    "qiniu_resumable": Row(
        "jiandaoyun", "film.mov", 9 * MIB, 2 * HOUR,
        (4 * MIB + 1, 8 * MIB, 8 * MIB + 1), "kodo.complete:579@1",
    ),
    "qiniu_form_large": Row(
        "jiandaoyun", "film.mov", 5 * MIB, 2 * HOUR, (4 * MIB + 1,), "kodo.form:579@1",
        ("kodo", {"v1": False, "v2": False}),
    ),
}  # fmt: skip
WHOLE = "sent whole: there is no part, and nothing to go on from"
SMALL = "a file of at most 4 MiB is qiniu_form's"
ALONE = "the vendor tells nobody"
CANNOT = {
    ("imagex", "empty"): "ImageX takes no empty file",
    ("qiniu_resumable", "empty"): SMALL,
    ("qiniu_form_large", "empty"): SMALL,
    ("qiniu_resumable", "one byte"): SMALL,
    ("qiniu_form_large", "one byte"): SMALL,
    ("form", "edges"): WHOLE,
    ("put", "edges"): WHOLE,
    ("oss_post", "edges"): WHOLE,
    ("careyshop_form", "edges"): WHOLE,
    ("form", "resumed"): WHOLE,
    ("put", "resumed"): WHOLE,
    ("oss_post", "resumed"): WHOLE,
    ("qiniu_form", "resumed"): WHOLE,
    ("qiniu_form_large", "resumed"): WHOLE,
    ("form", "untold"): ALONE,
    ("put", "untold"): ALONE,
    ("imagex", "untold"): ALONE,
    ("careyshop_form", "untold"): "the shop itself stores the file",
    ("imagex", "media type"): "ImageX looks at the picture",
    ("form", "empty reply"): "an empty answer is how many servers say that they have it",
    ("put", "empty reply"): "an empty answer is how many servers say that they have it",
}
KINDS = [row.name for row in TRANSPORTS]
STEPS = 5


def every_transport(case: str) -> pytest.MarkDecorator:
    """Runs a case with each row of the table; where it cannot be, it has to fail."""

    def param(kind: str) -> Any:
        reason = CANNOT.get((kind, case))
        marks = (
            [] if reason is None else [pytest.mark.xfail(reason=reason, raises=(AssertionError, Reject), strict=True)]
        )
        return pytest.param(kind, marks=marks)

    tried.add(case)
    return pytest.mark.parametrize("kind", [param(kind) for kind in KINDS])


tried: set[str] = set()


def test_every_transport_has_a_row_and_every_reason_a_case() -> None:
    assert list(ROWS) == KINDS
    assert {kind for kind, _ in CANNOT} <= set(KINDS)
    assert {case for _, case in CANNOT} <= tried


@pytest.fixture
def make(vendors: Vendors, sender: Make) -> Callable[..., tuple[Sender, bytes]]:
    """Makes a sender for a file of a row's size, or another one, of random bytes."""

    def made(kind: str, size: int | None = None) -> tuple[Sender, bytes]:
        row = ROWS[kind]
        name, switches = row.options
        vendors.options(name, **switches)
        content = os.urandom(row.size if size is None else size)
        return sender(row.provider, content, row.name), content

    return made


def objects(vendors: Vendors) -> int:
    return sum(path.is_file() for path in (Path(vendors.sandbox.data) / "objects").rglob("*"))


def copies(vendors: Vendors, content: bytes) -> int:
    """How many objects with these bytes the vendors have."""
    count = 0
    for path in (Path(vendors.sandbox.data) / "objects").rglob("*"):
        if path.is_file() and path.stat().st_size == len(content):
            with path.open("rb") as file:
                count += file.read(64) == content[:64] and file.read() == content[64:]
    return count


def arrives(one: Sender, kind: str) -> None:
    """Sends a file at one go."""
    receipt = one.attempt() if kind != "qiniu_form_large" else one.until_done()  # which learns first that it is needed
    assert one.transport is not None
    assert one.transport.name == kind
    assert receipt.key


# Sizes


@every_transport("fresh")
def test_a_file_arrives_byte_for_byte(kind: str, vendors: Vendors, make: Any) -> None:
    one, content = make(kind)
    arrives(one, kind)
    assert copies(vendors, content) == 1


@every_transport("told digits")
def test_a_file_that_has_the_digits_of_its_job_in_it_arrives_byte_for_byte(
    kind: str, vendors: Vendors, make: Any
) -> None:
    """Who may write the file may guess them, and must not end its form with them, to go on with fields of his own."""
    one, content = make(kind)
    ends = "".join(f"\r\n--{word}{one.seed}--\r\n" for word in ("", "dumbwaiter", "dumbwaiter-")).encode()
    content = ends + content[len(ends) :]
    one.path.write_bytes(content)
    one.stamp = Stamp.of(os.stat(one.path))
    arrives(one, kind)
    assert copies(vendors, content) == 1


@every_transport("empty")
def test_an_empty_file_arrives(kind: str, make: Any) -> None:
    one, _ = make(kind, 0)
    arrives(one, kind)


@every_transport("one byte")
def test_a_file_of_one_byte_arrives(kind: str, make: Any) -> None:
    one, _ = make(kind, 1)
    arrives(one, kind)


@every_transport("edges")
def test_a_file_that_ends_with_a_part_or_beside_it_arrives(kind: str, vendors: Vendors, make: Any) -> None:
    assert ROWS[kind].edges
    for size in ROWS[kind].edges:
        one, content = make(kind, size)
        arrives(one, kind)
        assert copies(vendors, content) == 1


@every_transport("media type")
def test_an_object_has_the_media_type_of_its_file(kind: str, vendors: Vendors, make: Any) -> None:
    """By it a browser shows a file or saves it."""
    row = ROWS[kind]
    for size in (row.size, *row.edges[:1]):
        one, content = make(kind, size)
        receipt = one.until_done()
        found = [made for made in vendors.objects() if made.size == size and receipt.key in made.key]
        assert [made.content_type for made in found] == [mimetypes.guess_type(row.name)[0]]
        assert copies(vendors, content) == 1


# Ends on the way


@every_transport("resumed")
def test_a_new_process_goes_on_from_every_checkpoint(kind: str, vendors: Vendors, make: Any) -> None:
    """One file is ended right after its first save, the next one after its second, and so on."""

    class Killed(Exception):
        """The process is no more."""

    for turn in range(1, 20):
        one, content = make(kind)

        def kill(one: Sender = one, turn: int = turn) -> None:
            if len(one.saved) == turn:
                raise Killed

        one.on_save = kill
        try:
            arrives(one, kind)
        except Killed:
            one.restart()
            one.until_done()
            assert copies(vendors, content) == 1
        else:
            break
    assert 1 < turn < 19


@every_transport("expired")
def test_a_permission_that_ends_on_the_way_is_replaced(kind: str, vendors: Vendors, make: Any) -> None:
    """Right after the first save; where there is none, before the file is sent."""
    one, content = make(kind)

    def expire() -> None:
        one.on_save = lambda: None
        vendors.advance(ROWS[kind].life)

    one.on_save = expire
    one.obtain()
    if (kind, "resumed") in CANNOT:
        expire()
    one.until_done()
    assert Reauth in {type(verdict) for verdict in one.verdicts}
    assert copies(vendors, content) == 1


@every_transport("broken")
@pytest.mark.parametrize(
    "fault",
    [
        *("cut", "cut-after", "cut-reply", "503", "html"),
        *(
            pytest.param(one, marks=pytest.mark.torture) for one in ("cut-within", "408", "429")
        ),  # like one of the others
    ],
)
def test_whichever_exchange_breaks_the_file_arrives_whole(kind: str, fault: str, vendors: Vendors, make: Any) -> None:
    breaks(kind, fault, vendors, make)


@every_transport("empty reply")
def test_an_answer_without_a_word_is_no_success(kind: str, vendors: Vendors, make: Any) -> None:
    breaks(kind, "empty", vendors, make)


def breaks(kind: str, fault: str, vendors: Vendors, make: Any) -> None:
    for size, step in product((1000, min(ROWS[kind].size, 5 * MIB)), range(1, STEPS + 1)):
        one, content = make(kind, size)
        vendors.faults(f"*:{fault}@{step}")
        one.until_done()
        # Where the vendor names the object, a lost answer may leave one that nobody knows of.
        assert 1 <= copies(vendors, content) <= 2
        no_secret(vendors, one, [str(verdict) for verdict in one.verdicts])


# Refusals


@every_transport("changed before")
def test_a_file_that_is_another_version_by_now_is_not_sent(kind: str, vendors: Vendors, make: Any) -> None:
    one, old = make(kind)
    new = os.urandom(len(old))
    one.obtain()
    one.path.write_bytes(new)
    assert type(one.verdict()) is Changed
    assert copies(vendors, old) == copies(vendors, new) == 0


@every_transport("resumed")
def test_a_file_that_changes_on_the_way_is_not_finished(kind: str, vendors: Vendors, make: Any) -> None:
    """What was on its way may arrive, whole; never a mixture."""
    one, old = make(kind)
    new = os.urandom(len(old))
    before = objects(vendors)
    one.on_save = lambda: one.path.write_bytes(new)
    assert type(one.verdict()) is Changed
    assert objects(vendors) - before == copies(vendors, old)
    assert copies(vendors, new) == 0


@every_transport("refused")
@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 409, 413, 429, 500])
def test_a_refusal_is_a_verdict_with_words(kind: str, status: int, vendors: Vendors, make: Any) -> None:
    one, content = make(kind, min(ROWS[kind].size, 5 * MIB))
    one.obtain()
    vendors.faults(f"*:{status}")
    with pytest.raises(Verdict) as raised:
        one.attempt()
    assert len(str(raised.value)) > 10
    assert copies(vendors, content) == 0
    no_secret(vendors, one, [str(raised.value)])


@every_transport("there")
def test_what_is_there_already_is_found_or_replaced(kind: str, vendors: Vendors, make: Any) -> None:
    """The file is there and its receipt was lost, with all that was known of it but its permission."""
    one, content = make(kind)
    before = one.until_done()
    one.checkpoint, one.sent = None, 0
    after = one.until_done()
    assert copies(vendors, content) == (1 if before.key == after.key else 2)


@every_transport("untold")
def test_who_cannot_be_told_of_a_stored_file_is_no_reason_to_send_it_again(
    kind: str, vendors: Vendors, make: Any
) -> None:
    assert ROWS[kind].untold
    one, content = make(kind)
    one.obtain()
    vendors.faults(ROWS[kind].untold)
    receipt = one.until_done()
    assert copies(vendors, content) == 1
    assert receipt.facts["callback"] == "failed"
    assert sum(entry["received"] > len(content) // 2 for entry in vendors.log()) <= 1


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
        secrets += _secrets_of(msgspec.to_builtins(one.grant.ticket, enc_hook=_plain))
    for text in texts:
        for secret in secrets:
            assert str(secret) not in text


def _plain(value: Any) -> str:
    return value.reveal() if isinstance(value, Secret) else str(value)


def _secrets_of(ticket: Any) -> list[str]:
    if not isinstance(ticket, dict):
        return []
    names = ("token", "secret", "session", "auth", "policy", "signature")
    return [
        value for name, value in ticket.items() if isinstance(value, str) and value and any(n in name for n in names)
    ]
