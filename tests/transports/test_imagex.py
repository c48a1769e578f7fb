"""ImageX's upload hosts, played by a list of answers: what each of them makes the transport do next."""

import asyncio
import json
import zlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import pytest

from answers import Answers
from dumbwaiter.doors import Hash
from dumbwaiter.errors import Reauth, Reject, Restart, Retry, Verdict
from dumbwaiter.model import MIB, Receipt
from dumbwaiter.tickets import ImageXTicket
from dumbwaiter.transports.imagex import PART, Checkpoint, send
from dumbwaiter.wire.message import FileSlice, Reply

T = TypeVar("T")
URI = "bucket/00112233445566778899aabbccddeeff"
SIZE = 2 * PART + MIB
CRCS = {0: f"{zlib.crc32(bytes(PART)):08x}", 1: f"{zlib.crc32(bytes(PART)):08x}", 2: f"{zlib.crc32(bytes(MIB)):08x}"}
HOSTS = ("https://one.example", "https://two.example")


class Upload(Answers):
    """A file of zeros and a host that answers from a list."""

    def __init__(
        self, size: int, *answers: object, point: Checkpoint | None = None, multipart: str = "gateway"
    ) -> None:
        super().__init__(*answers)
        self.ticket = ImageXTicket(HOSTS, URI, "SpaceKey/secret", "session", "id", {"x-route": "1"}, multipart)
        self.size, self.key, self.name, self.mime, self.seed = size, "key", "a.bin", "text/plain", "seed"
        self.checkpoint = point
        self.saved: list[tuple[Checkpoint, int]] = []
        self.is_whole = False
        self.commits: list[Receipt | None] = [Receipt("key", facts={"width": "3"})]

    async def read(self, offset: int, length: int) -> FileSlice:
        length = min(length, self.size - offset)
        return FileSlice(0, offset, length, bytes(length) if length <= 4 * MIB else None)

    async def digested(self, offset: int, length: int, into: Hash) -> None:
        into.update(bytes(length))

    async def whole(self) -> None:
        self.is_whole = True

    async def save(self, point: Checkpoint, sent: int, *, sure: bool = False) -> None:
        if point.merging or point.whole:  # what is said of all of it: after it was looked at, and before it is told
            assert sure
            assert self.is_whole
        self.saved.append((point, sent))

    async def parts(
        self, numbers: Iterable[int], one: Callable[[int], Awaitable[T]], done: Callable[[int, T], Awaitable[None]]
    ) -> None:
        for number in numbers:
            await done(number, await one(number))

    async def confirm(self) -> Receipt | None:
        return self.commits.pop(0)

    def order(self, urls: tuple[str, ...]) -> list[str]:
        return list(urls)

    def now(self, url: str) -> float:
        raise AssertionError

    def run(self) -> Receipt:
        receipt = asyncio.run(send(self))
        assert not self.answers
        return receipt

    @property
    def urls(self) -> list[str]:
        return [f"{one.method} {one.url.replace(URI, '*')}" for one in self.asked]


def page(**data: Any) -> dict[str, Any]:
    return {"code": 2000, "message": "Success", "data": data}


def sdk(**payload: Any) -> dict[str, Any]:
    return {"success": 0, "error": {"error_code": 0}, "payload": payload}


def listed(*numbers: int, **changes: Any) -> dict[str, Any]:
    return sdk(partList=[{"partNumber": str(number + 1), "crc32": CRCS[number], **changes} for number in numbers])


def trouble(number: int, status: int = 400) -> Reply:
    return Reply(status, {}, json.dumps({"success": 1, "error": {"error": "Name", "error_code": number}}).encode())


def part(number: int) -> dict[str, Any]:
    return sdk(crc32=CRCS[number])


def test_a_small_file_goes_in_one_request_with_its_checksum() -> None:
    upload = Upload(5, page(crc32=f"{zlib.crc32(bytes(5)):08x}"))
    receipt = upload.run()
    assert upload.urls == ["POST https://one.example/upload/v1/*"]
    headers = upload.asked[0].headers
    assert headers["authorization"] == "SpaceKey/secret"
    assert headers["content-crc32"] == f"{zlib.crc32(bytes(5)):08x}"
    assert headers["x-route"] == "1"
    assert upload.saved == [(Checkpoint(whole=True), 5)]
    assert receipt.verified == "crc32"
    assert receipt.facts == {"bucket": "bucket", "uri": URI, "width": "3"}
    assert receipt.url is None


def test_a_host_in_trouble_makes_room_for_the_next() -> None:
    crc = f"{zlib.crc32(bytes(5)):08x}"
    for first in (Retry("gone"), Reply(503), trouble(5001, 500), page(crc32="00000000")):
        upload = Upload(5, first, page(crc32=crc))
        upload.run()
        assert upload.urls[1] == "POST https://two.example/upload/v1/*"


@pytest.mark.parametrize("size", [MIB, SIZE])
def test_when_all_hosts_are_in_trouble_the_last_ones_is_told(size: int) -> None:
    with pytest.raises(Retry, match="the second is down"):
        Upload(size, Retry("the first is down"), Retry("the second is down")).run()


def test_a_journal_that_knows_no_length_of_a_part_is_not_believed() -> None:
    answers = [sdk(uploadID="new"), part(0), part(1), part(2), sdk()]
    upload = Upload(SIZE, *answers, point=Checkpoint(HOSTS[0], "old"))
    upload.run()
    assert not any("old" in url for url in upload.urls)


def test_a_commit_that_tells_nothing_is_enough_with_an_equal_checksum() -> None:
    upload = Upload(5, page(crc32=f"{zlib.crc32(bytes(5)):08x}"))
    upload.commits = [None]
    assert upload.run().verified == "crc32"


def test_a_commit_that_tells_nothing_of_a_picture_is_asked_again() -> None:
    upload = Upload(5, page(crc32=f"{zlib.crc32(bytes(5)):08x}"))
    upload.mime, upload.commits = "image/png", [None]
    with pytest.raises(Retry, match="does not say yet"):
        upload.run()
    again = Upload(5, point=upload.saved[-1][0])
    again.mime = "image/png"
    assert again.run().verified == "crc32"
    assert again.asked == []


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (page(), Retry),
        ({"code": 2000}, Retry),
        ({"code": 4007, "message": "m"}, Retry),
        ({"code": 5003, "message": "m"}, Retry),
        ({"code": 4013, "message": "m"}, Reject),
        ({}, Retry),
        (Reply(200, {}, b""), Retry),
        (Reply(401), Reauth),
        (Reply(403), Reauth),
        (Reply(404), Retry),
        (Reply(429, {}, b"", 3.0), Retry),
        (trouble(4007), Retry),
        (trouble(4025), Reauth),
        (trouble(0, 413), Reject),
    ],
)
def test_an_answer_that_is_no_success_is_told_apart(answer: object, verdict: type[Verdict]) -> None:
    upload = Upload(5, answer)
    upload.ticket = ImageXTicket(HOSTS[:1], URI, "SpaceKey/secret", "session", "id")
    with pytest.raises(verdict) as caught:
        upload.run()
    assert upload.saved == []
    assert "SpaceKey" not in str(caught.value)


@pytest.mark.parametrize(
    ("multipart", "init", "first", "merge", "mode"),
    [
        ("gateway", "PUT https://one.example/*?uploads", "partNumber=1&uploadID=up", "?uploadID=up", "gateway"),
        ("plain", "PUT https://one.example/*?uploads", "partNumber=0&uploadID=up", "?uploadID=up", None),
        (
            "v1",
            "POST https://one.example/upload/v1/*?uploadmode=part&phase=init",
            "uploadmode=part&phase=transfer&part_number=1&uploadid=up",
            "?uploadmode=part&phase=finish&uploadid=up",
            None,
        ),
    ],
)
def test_a_large_file_goes_in_parts_in_each_dialect(
    multipart: str, init: str, first: str, merge: str, mode: str | None
) -> None:
    answer = page if multipart == "v1" else sdk
    name = {"uploadid" if multipart == "v1" else "uploadID": "up"}
    upload = Upload(SIZE, answer(**name), *(answer(crc32=CRCS[n]) for n in range(3)), answer(), multipart=multipart)
    assert upload.run().verified == "crc32"
    assert upload.urls[0] == init
    assert upload.urls[1].endswith(f"*?{first}")
    assert upload.urls[4].endswith(merge)
    assert {one.headers.get("x-storage-mode") for one in upload.asked} == {mode}
    number = 0 if multipart == "plain" else 1
    assert upload.asked[4].body == ",".join(f"{n + number}:{CRCS[n]}" for n in range(3)).encode()
    assert [sent for _, sent in upload.saved] == [0, PART, 2 * PART, SIZE, SIZE, SIZE]
    assert upload.saved[-2][0].merging
    assert upload.saved[-1][0].whole


@pytest.mark.parametrize(("answer", "verdict"), [(sdk(), Retry), (sdk(uploadID=""), Retry), (trouble(4025), Reauth)])
def test_an_upload_that_its_host_does_not_begin_has_no_place_to_go_on_from(
    answer: object, verdict: type[Verdict]
) -> None:
    upload = Upload(SIZE, answer)
    with pytest.raises(verdict):
        upload.run()
    assert upload.saved == []


def test_what_is_whole_is_only_committed() -> None:
    assert Upload(SIZE, point=Checkpoint(whole=True)).run().key == "00112233445566778899aabbccddeeff"


def resumed(parts: dict[int, str], *answers: object, **changes: Any) -> Upload:
    return Upload(SIZE, *answers, point=Checkpoint(HOSTS[0], "up", PART, parts, **changes))


def test_a_resume_sends_only_what_the_host_lacks() -> None:
    upload = resumed({0: CRCS[0], 2: CRCS[2]}, listed(0, 2), part(1), sdk())
    upload.run()
    assert upload.urls[1].endswith("partNumber=2&uploadID=up")


@pytest.mark.parametrize(
    ("listing", "missing"),
    [
        (listed(0), [2, 3]),  # the host lost one
        (listed(0, 1, crc32="00000000"), [1, 2, 3]),  # it has other bytes
        (listed(0, 1, crc32=None), [3]),  # it does not say
        (listed(0, 1, 2), [3]),  # it has one that we never noted
        (sdk(partList=[{"part_number": 1, "crc32": CRCS[0]}]), [2, 3]),
        (sdk(), [1, 2, 3]),
    ],
)
def test_record_and_list_have_to_agree(listing: object, missing: list[int]) -> None:
    upload = resumed({0: CRCS[0], 1: CRCS[1]}, listing, *(part(number - 1) for number in missing), sdk())
    upload.run()
    assert [int(url.partition("partNumber=")[2].partition("&")[0]) for url in upload.urls[1:-1]] == missing


def test_an_upload_that_its_host_forgot_begins_again() -> None:
    with pytest.raises(Restart):
        resumed({0: CRCS[0]}, Reply(404)).run()


def test_another_host_is_asked_when_the_first_is_in_trouble() -> None:
    upload = resumed({0: CRCS[0], 1: CRCS[1]}, Retry("down"), listed(0, 1), part(2), sdk())
    upload.run()
    assert all(url.partition(" ")[2].startswith(HOSTS[1]) for url in upload.urls[1:])
    with pytest.raises(Retry, match="down"):  # that the other one does not know it says nothing
        resumed({0: CRCS[0]}, Retry("down"), Reply(404)).run()


@pytest.mark.parametrize("answer", [sdk(), trouble(4024), trouble(4025), Reply(404)])
def test_parts_that_were_asked_to_be_joined_are_asked_again_and_committed(answer: object) -> None:
    upload = resumed(CRCS, answer, merging=True)
    upload.run()
    assert len(upload.asked) == 1


@pytest.mark.parametrize(("answer", "verdict"), [(trouble(4024), Retry), (Reply(404), Restart)])
def test_a_joining_that_nobody_tells_of_is_no_success(answer: object, verdict: type[Verdict]) -> None:
    upload = resumed(CRCS, answer, merging=True)
    upload.commits = [None]
    with pytest.raises(verdict):
        upload.run()
    assert not any(point.whole for point, _ in upload.saved)


def test_a_part_whose_checksum_nobody_tells_leaves_the_file_unproven() -> None:
    upload = resumed({0: CRCS[0]}, listed(0), sdk(), Retry("gone"))
    with pytest.raises(Retry, match="gone"):
        upload.run()
    again = Upload(SIZE, listed(0, 1), part(2), sdk(), point=upload.saved[-1][0])
    assert again.run().verified == ""


def test_a_list_that_did_not_agree_is_repaired_once() -> None:
    upload = resumed(CRCS, listed(0, 1, 2), trouble(4019), listed(0, 1), part(2), sdk())
    upload.run()
    with pytest.raises(Restart):
        resumed(CRCS, listed(0, 1, 2), trouble(4019), listed(0, 1, 2), trouble(4019)).run()


def test_an_object_that_is_there_already_needs_another_permission() -> None:
    with pytest.raises(Reauth):
        resumed({}, listed(), trouble(4025)).run()


def test_parts_grow_when_there_would_be_too_many() -> None:
    upload = Upload(10_000 * PART + 1, sdk(uploadID="up"), Retry("enough"))
    with pytest.raises(Retry):
        upload.run()
    assert upload.saved[0][0].length == PART + 1
