"""Qiniu's transports against the sandbox, with tokens of every kind."""

import asyncio
import os
import random
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import qiniu as sdk
from msgspec.structs import replace

import peer
from asynchronous import at_once
from dumbwaiter.errors import Blocked, Reauth, Reject, Restart, Retry, Unfit
from dumbwaiter.jobs.progress import Progress
from dumbwaiter.jobs.sent_bytes import Ranges, SentBytes
from dumbwaiter.jobs.threads import Threads
from dumbwaiter.jobs.upload import FileUpload
from dumbwaiter.model import MIB, Ask, Receipt, Stamp
from dumbwaiter.net import slices
from dumbwaiter.net.abort import Abort
from dumbwaiter.net.http import Http
from dumbwaiter.net.pace import Abreast
from dumbwaiter.tickets import QiniuTicket
from dumbwaiter.transports import choose, qiniu_form, qiniu_resumable
from dumbwaiter.wire.message import FileSlice, Reply, Request
from dumbwaiter_sandbox.kodo.accounts import ACCOUNTS, upload_token
from program import Vendors

ACCOUNT = ACCOUNTS["kodo"]
BUCKET = ACCOUNT.buckets[0]
PART = 4 * MIB


class Bench:
    """One file, and what it takes to send it."""

    def __init__(self, folder: Path) -> None:
        self.vendors = Vendors(folder / "sandbox")
        self.path = folder / "file.bin"
        self.saved: list[Any] = []
        self.moved: list[tuple[str, str]] = []

    def write(self, size: int) -> None:
        self.path.write_bytes(random.Random(size).randbytes(size))

    @property
    def etag(self) -> str:
        etag: str = sdk.etag(str(self.path))
        return etag

    def ticket(
        self, key: str | None = "a b/测试.bin", *, hosts: tuple[str, ...] = ("up1",), **policy: Any
    ) -> QiniuTicket:
        members = {"scope": BUCKET if key is None else f"{BUCKET}:{key}", "deadline": int(time.time()) + 3600, **policy}
        urls = tuple(self.vendors.sandbox.urls[name] for name in hosts)
        return QiniuTicket(urls, upload_token(ACCOUNT, members), key, facts={"transaction": "t"})

    def send(self, module: Any, ticket: QiniuTicket, checkpoint: Any = None, there: Receipt | None = None) -> Receipt:
        def save(text: str, _sent: int, _more: int, _again: int) -> "Future[None]":
            self.saved.append(msgspec.json.decode(text, type=qiniu_resumable.Checkpoint))
            return at_once(None)

        http = Http()
        line = SimpleNamespace(
            exchange=http.exchange, order=http.order, now=lambda _: time.time(), abreast=Abreast(),
            better=lambda url, other: self.moved.append((url, other)),
        )  # fmt: skip
        threads = Threads(1, 2)
        fd = os.open(self.path, os.O_RDONLY)
        stamp = Stamp.of(os.fstat(fd))
        ask = Ask("w", 'fi"le.bin', "k", stamp.size, "application/octet-stream", "seed")
        one = FileUpload(
            fd, stamp, threads=threads, ticket=ticket, key=ticket.key, ask=ask, checkpoint=checkpoint,
            progress=Progress(SentBytes(stamp.size, 0, Ranges()), save), line=line, confirm=lambda: at_once(there),
        )  # fmt: skip
        try:
            return one.run(module.send)[0]
        finally:
            os.close(fd)
            threads.close()
            asyncio.run(http.close())

    def object(self, key: str) -> bytes:
        return (
            self.vendors.sandbox.world.objects.path(BUCKET, key)
            and Path(self.vendors.sandbox.world.objects.path(BUCKET, key))
        ).read_bytes()

    def calls(self, name: str) -> list[Mapping[str, Any]]:
        return self.vendors.log(name)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.vendors.close()


@pytest.mark.parametrize(
    ("size", "name"),
    [(0, "qiniu_form"), (PART, "qiniu_form"), (PART + 1, "qiniu_resumable"), (1 << 40, "qiniu_resumable")],
)
def test_small_files_go_as_a_form_and_large_ones_in_parts(size: int, name: str) -> None:
    assert choose(QiniuTicket((), ""), size).name == name


def test_a_large_file_goes_as_a_form_where_parts_are_refused() -> None:
    assert choose(QiniuTicket((), ""), PART + 1, {"qiniu_resumable"}).name == "qiniu_form_large"


# Forms


@pytest.mark.parametrize(("path", "line"), [("", b"POST / "), ("/", b"POST / "), ("/up/load", b"POST /up/load ")])
def test_an_address_is_asked_as_it_is_and_an_answer_without_a_mark_believed_by_what_it_names(
    bench: Bench, path: str, line: bytes
) -> None:
    bench.write(5)
    requests: list[tuple[bytes, bytes]] = []
    with peer.Peer(peer.echo(requests, peer.answer(b'{"key": "k"}'))) as server:
        ticket = QiniuTicket((f"{server.url}{path}",), bench.ticket("k").token, "k")
        receipt = bench.send(qiniu_form, ticket)
        assert (receipt.key, receipt.verified) == ("k", ""), "nothing shows that it looked at the bytes"
        with pytest.raises(Retry, match="something between here"):
            bench.send(qiniu_form, replace(ticket, token=bench.ticket("other").token, key="other"))
    assert requests[0][0].startswith(line)


def test_fields_go_in_the_vendors_order(bench: Bench) -> None:
    bench.write(5)
    ticket = replace(bench.ticket("k"), fields={"x:a": "1", "x:b": "2"}, order=("x:a", "key", "x:b", "token"))
    bench.send(qiniu_form, ticket)
    assert bench.calls("form")[0]["fields"] == ["x:a", "key", "x:b", "token", "crc32", "file"]


@pytest.mark.parametrize("size", [0, 1, PART, PART + 1])
def test_a_form_holds_the_whole_file_and_ends_with_it(bench: Bench, size: int) -> None:
    bench.write(size)
    ticket = bench.ticket()
    receipt = bench.send(qiniu_form, ticket)
    assert ticket.key is not None
    assert receipt == Receipt(ticket.key, bench.etag, verified="qetag", facts={"bucket": BUCKET, "transaction": "t"})
    assert bench.object(ticket.key) == bench.path.read_bytes()
    (call,) = bench.calls("form")
    assert (call["fields"], call["filename"]) == (["token", "key", "crc32", "file"], "fi_le.bin")


def test_a_token_that_names_the_object_is_sent_no_key(bench: Bench) -> None:
    bench.write(5)
    ticket = bench.ticket(None, forceSaveKey=True, saveKey="by-token")
    assert bench.send(qiniu_form, ticket).key == "by-token"
    assert bench.calls("form")[0]["fields"] == ["token", "crc32", "file"]
    bench.write(PART + 5)
    ticket = bench.ticket(None, saveKey="$(etag)/$(fname)")
    assert bench.send(qiniu_resumable, ticket).key == f"{bench.etag}/fi_le.bin"


@pytest.mark.parametrize("fault", ["cut", "cut-within", "cut-after", "cut-reply", "html", "empty"])
def test_a_lost_answer_is_asked_for_again_with_the_same_token(bench: Bench, fault: str) -> None:
    bench.write(100_000)
    bench.vendors.faults(f"kodo.form:{fault}@1")
    assert bench.send(qiniu_form, bench.ticket(None, forceSaveKey=True, saveKey="k")).key == "k"
    assert len(bench.calls("form")) == 2
    assert bench.object("k") == bench.path.read_bytes()


def test_another_host_takes_over(bench: Bench) -> None:
    bench.write(100)
    bench.vendors.faults("up1.form:599,up1.init:503")
    assert bench.send(qiniu_form, bench.ticket(hosts=("up1", "up2"))).verified == "qetag"
    bench.write(PART + 1)
    assert bench.send(qiniu_resumable, bench.ticket(hosts=("up1", "up2"))).verified == "qetag"


def test_a_part_that_broke_off_at_one_host_is_whole_at_the_next(bench: Bench) -> None:
    """What is compared is what the second host got, and not what both did."""
    bench.write(2 * PART)
    bench.vendors.faults("up1.part:cut-within@1")
    assert bench.send(qiniu_resumable, bench.ticket("k", hosts=("up1", "up2"))).verified == "qetag"
    assert bench.object("k") == bench.path.read_bytes()
    assert sum(call["status"] == 200 for call in bench.calls("part")) == 2


def test_a_host_in_trouble_is_not_pressed(bench: Bench) -> None:
    bench.write(100)
    bench.vendors.faults("kodo.form:503")
    with pytest.raises(Retry):
        bench.send(qiniu_form, bench.ticket())
    assert len(bench.calls("form")) == 1


@pytest.mark.parametrize("size", [100, PART + 100])
def test_the_wrong_region_names_the_right_one_once(bench: Bench, size: int) -> None:
    bench.write(size)
    module = choose(bench.ticket(), size).send
    sender = type("Module", (), {"send": staticmethod(module)})
    bench.vendors.faults("up1.form:region,up1.init:region")
    assert bench.send(sender, bench.ticket()).verified == "qetag"
    urls = bench.vendors.sandbox.urls
    assert bench.moved == [(urls["up1"], urls["up2"])]
    bench.vendors.faults("kodo.form:region,kodo.init:region")
    with pytest.raises(Blocked, match="another region"):
        bench.send(sender, bench.ticket())
    bench.vendors.faults("kodo.form:region-foreign,kodo.init:region-foreign")
    with pytest.raises(Blocked, match="another region"):
        bench.send(sender, bench.ticket())


@pytest.mark.parametrize("size", [100, PART + 100])
def test_a_callback_that_fails_is_told_and_nothing_is_sent_again(bench: Bench, size: int) -> None:
    bench.write(size)
    module = qiniu_form if size < PART else qiniu_resumable
    receipt = bench.send(module, bench.ticket("k", callbackUrl="http://127.0.0.1:1/", callbackBody="key=$(key)"))
    assert receipt.facts["callback"] == "failed"
    assert (receipt.key, receipt.etag) == ("k", bench.etag)
    assert bench.object("k") == bench.path.read_bytes()
    assert len(bench.calls("form")) + len(bench.calls("complete")) == 1


@pytest.mark.parametrize("size", [100, PART + 100])
def test_what_is_there_already_is_compared(bench: Bench, size: int) -> None:
    bench.write(size)
    module = qiniu_form if size < PART else qiniu_resumable
    bench.send(module, bench.ticket("k"))
    bench.vendors.faults("kodo.form:exists,kodo.complete:exists")
    assert bench.send(module, bench.ticket("k"), there=Receipt("k", bench.etag, url="u")).verified == "qetag"
    with pytest.raises(Reject, match="another file as k"):
        bench.send(module, bench.ticket("k"), there=Receipt("k", "Fother"))
    with pytest.raises(Reject, match="cannot be seen"):
        bench.send(module, bench.ticket("k"))


def test_an_identical_object_is_success_and_another_is_refused(bench: Bench) -> None:
    bench.write(100)
    ticket = bench.ticket("k", insertOnly=1)
    bench.send(qiniu_form, ticket)
    assert bench.send(qiniu_form, ticket).verified == "qetag"
    bench.write(101)
    with pytest.raises(Reject):
        bench.send(qiniu_form, ticket)


@pytest.mark.parametrize(
    ("fault", "verdict"),
    [
        ("expired-token", Reauth),
        ("bad-token", Reauth),
        ("no-bucket", Blocked),
        ("406", Retry),
        ("413", Reject),
        ("571", Retry),
        ("573", Retry),
    ],
)
@pytest.mark.parametrize("call", ["form", "part", "complete"])
def test_refusals(bench: Bench, fault: str, verdict: type[Exception], call: str) -> None:
    bench.write(100 if call == "form" else PART + 100)
    bench.vendors.faults(f"kodo.{call}:{fault}")
    with pytest.raises(verdict):
        bench.send(qiniu_form if call == "form" else qiniu_resumable, bench.ticket())


# Parts


@pytest.mark.parametrize("size", [PART + 1, 2 * PART, 3 * PART - 1])
def test_parts_make_the_object_with_the_usual_hash(bench: Bench, size: int) -> None:
    bench.write(size)
    receipt = bench.send(qiniu_resumable, bench.ticket("k"))
    assert (receipt.etag, receipt.verified) == (bench.etag, "qetag")
    assert bench.object("k") == bench.path.read_bytes()
    assert bench.saved[-1].sent == size


@pytest.mark.parametrize("key", ["k", None])
def test_a_second_token_goes_on_where_the_first_came_to(bench: Bench, key: str | None) -> None:
    bench.write(5 * PART)
    names = {"forceSaveKey": True} if key is None else {}
    bench.vendors.faults("kodo.part:expired-token@3x9")
    with pytest.raises(Reauth):
        bench.send(qiniu_resumable, bench.ticket(key, saveKey="first", **names))
    bench.vendors.faults("")
    receipt = bench.send(qiniu_resumable, bench.ticket(key, saveKey="second", **names), bench.saved[-1])
    assert receipt.key == (key or "second")
    assert bench.object(receipt.key) == bench.path.read_bytes()
    # One beside the refused one may have been cut off, and come to its end only after the list was asked for.
    assert sum(call["status"] == 200 for call in bench.calls("part")) in {5, 6}


def test_the_list_of_parts_is_read_to_its_end_and_lost_ones_are_sent_again(bench: Bench) -> None:
    bench.write(5 * PART)
    bench.vendors.faults("kodo.complete:503")
    with pytest.raises(Retry):
        bench.send(qiniu_resumable, bench.ticket("k"))
    bench.vendors.faults("kodo.parts:lost-part@1")
    bench.vendors.http.put("/_sandbox/options", json={"kodo": {"page": 2}}).raise_for_status()
    assert bench.send(qiniu_resumable, bench.ticket("k"), bench.saved[-1]).verified == "qetag"
    assert len(bench.calls("parts")) == 2
    assert len(bench.calls("part")) == 6


@pytest.mark.parametrize(
    "fault", ["part:no-upload@2", "part:bad-md5@2", "part:cut-within@2", "parts:405", "complete:no-upload"]
)
def test_trouble_on_the_way_ends_the_attempt_and_not_the_file(bench: Bench, fault: str) -> None:
    bench.write(3 * PART)
    bench.vendors.faults("kodo.part:503@3")
    with pytest.raises(Retry):
        bench.send(qiniu_resumable, bench.ticket("k"))
    bench.vendors.faults(f"kodo.{fault}")
    checkpoint = bench.saved[-1] if fault.startswith("parts") else None
    with pytest.raises((Retry, Restart)):
        bench.send(qiniu_resumable, bench.ticket("k"), checkpoint)
    bench.vendors.faults("")
    assert bench.send(qiniu_resumable, bench.ticket("k")).verified == "qetag"


def test_parts_that_are_not_taken_as_they_are_are_left_to_the_form(bench: Bench) -> None:
    bench.write(2 * PART)
    bench.vendors.faults("kodo.complete:400")
    with pytest.raises(Unfit, match="as they are"):
        bench.send(qiniu_resumable, bench.ticket("k"))


@pytest.mark.parametrize(
    ("faults", "new"),
    [("kodo.parts:lost-part@1,kodo.part:400", Reject), ("kodo.parts:400", None), ("kodo.complete:400", Unfit)],
)
def test_what_an_earlier_attempt_began_and_is_refused_now_begins_again_once(
    bench: Bench, faults: str, new: type[Exception] | None
) -> None:
    bench.write(3 * PART)
    bench.vendors.faults("kodo.complete:503")
    with pytest.raises(Retry):
        bench.send(qiniu_resumable, bench.ticket("k"))
    bench.vendors.faults(faults)
    with pytest.raises(Restart) as raised:
        bench.send(qiniu_resumable, bench.ticket("k"), bench.saved[-1])
    assert type(raised.value) is Restart
    with nullcontext() if new is None else pytest.raises(new):
        bench.send(qiniu_resumable, bench.ticket("k"))


def test_parts_whose_tags_say_nothing_are_compared_by_their_md5(bench: Bench) -> None:
    bench.vendors.http.put("/_sandbox/options", json={"kodo": {"opaque_tags": True}}).raise_for_status()
    bench.write(2 * PART + 1)
    assert bench.send(qiniu_resumable, bench.ticket("k")).verified == "qetag"
    bench.vendors.faults("kodo.part:bad-md5@2")
    with pytest.raises(Retry, match="damaged"):
        bench.send(qiniu_resumable, bench.ticket("other"))


def test_parts_whose_tags_say_nothing_are_not_sent_again(bench: Bench) -> None:
    bench.vendors.http.put("/_sandbox/options", json={"kodo": {"opaque_tags": True}}).raise_for_status()
    bench.write(3 * PART)
    bench.vendors.faults("kodo.complete:503")
    with pytest.raises(Retry):
        bench.send(qiniu_resumable, bench.ticket("k"))
    bench.vendors.faults("")
    assert bench.send(qiniu_resumable, bench.ticket("k"), bench.saved[-1]).verified == "qetag"
    assert len(bench.calls("part")) == 3


def test_parts_of_which_the_server_tells_nothing_prove_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a hash of each, nor one of the whole: then nobody may say that the object is as the file is."""
    bench.vendors.http.put("/_sandbox/options", json={"kodo": {"opaque_tags": True}}).raise_for_status()
    bench.write(2 * PART)
    answered = Http.exchange

    def silent(http: Http, request: Request, abort: Abort) -> Reply:
        reply = answered(http, request, abort)
        told = reply.members
        if request.what != "part" or told is None:
            return reply
        return replace(reply, body=msgspec.json.encode({"etag": told["etag"]}))

    monkeypatch.setattr(Http, "exchange", silent)
    assert bench.send(qiniu_resumable, bench.ticket("k", returnBody='{"key":$(key)}')).verified == ""
    assert bench.object("k") == bench.path.read_bytes()


@pytest.mark.parametrize("tags", ["hashes", "opaque"])
def test_a_part_that_arrived_damaged_is_not_taken_from_the_list(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tags: str
) -> None:
    """Nor where the answer to the end says nothing of the whole."""
    bench.vendors.http.put("/_sandbox/options", json={"kodo": {"opaque_tags": tags == "opaque"}}).raise_for_status()
    bench.write(3 * PART)
    ticket = bench.ticket("k", returnBody='{"key":$(key)}')
    whole = slices._views
    struck = []

    def damaged(piece: FileSlice, buffer: memoryview) -> Iterator[memoryview]:
        for view in whole(piece, buffer):
            if piece.offset == 2 * PART and not struck:  # it begins when another one has been noted
                struck.append(copy := bytearray(view))
                copy[100] ^= 1
                yield memoryview(copy)
            else:
                yield view

    monkeypatch.setattr(slices, "_views", damaged)
    with pytest.raises(Retry, match="damaged"):
        bench.send(qiniu_resumable, ticket)
    assert bench.send(qiniu_resumable, ticket, bench.saved[-1]).verified == "md5"
    assert bench.object("k") == bench.path.read_bytes()


def test_where_the_list_brings_the_last_part_that_all_was_sent_is_noted_too(bench: Bench) -> None:
    bench.write(3 * PART)
    bench.vendors.faults("kodo.complete:503")
    with pytest.raises(Retry):
        bench.send(qiniu_resumable, bench.ticket("k"))
    point = replace(bench.saved[-1], sent=2 * PART)  # the answer to the last part was lost
    bench.saved.clear()
    with pytest.raises(Retry):
        bench.send(qiniu_resumable, bench.ticket("k"), point)
    assert bench.saved[-1].sent == 3 * PART


@pytest.mark.parametrize("fault", ["cut", "cut-after", "cut-reply"])
def test_the_lost_answer_to_the_end_is_asked_for_again(bench: Bench, fault: str) -> None:
    bench.write(2 * PART)
    bench.vendors.faults(f"kodo.complete:{fault}@1")
    ticket = bench.ticket("k")
    there = Receipt("k", bench.etag)
    assert bench.send(qiniu_resumable, ticket, there=there).etag == bench.etag
    assert len(bench.calls("part")) == 2
    assert bench.object("k") == bench.path.read_bytes()


def test_a_finished_upload_is_told_from_one_that_is_gone(bench: Bench) -> None:
    bench.write(2 * PART)
    bench.send(qiniu_resumable, bench.ticket("k"))
    point = bench.saved[-1]
    assert bench.send(qiniu_resumable, bench.ticket("k"), point, Receipt("k", bench.etag)).verified == "qetag"
    with pytest.raises(Restart):
        bench.send(qiniu_resumable, bench.ticket("k"), point)


def test_a_checkpoint_of_another_object_counts_for_nothing(bench: Bench) -> None:
    bench.write(2 * PART)
    bench.send(qiniu_resumable, bench.ticket("k"))
    assert bench.send(qiniu_resumable, bench.ticket("other"), bench.saved[-1]).key == "other"


# Version 1


def test_blocks_are_used_where_there_are_no_parts_and_nothing_can_be_replaced(bench: Bench) -> None:
    bench.write(3 * PART + 7)
    bench.vendors.http.put("/_sandbox/options", json={"kodo": {"v2": False}}).raise_for_status()
    bench.vendors.faults("kodo.mkblk:expired-token@3x9")
    with pytest.raises(Reauth):
        bench.send(qiniu_resumable, bench.ticket("k/测"))
    bench.vendors.faults("kodo.mkblk:bad-crc@1x9")
    with pytest.raises(Retry):
        bench.send(qiniu_resumable, bench.ticket("k/测"), bench.saved[-1])
    bench.vendors.faults("")
    receipt = bench.send(qiniu_resumable, bench.ticket("k/测"), bench.saved[-1])
    assert (receipt.key, receipt.etag, receipt.verified) == ("k/测", bench.etag, "qetag")
    assert bench.object("k/测") == bench.path.read_bytes()
    with pytest.raises(Restart):  # its contexts are used up
        bench.send(qiniu_resumable, bench.ticket("k/测"), bench.saved[-1])


def test_blocks_are_not_used_where_they_could_replace_another_object(bench: Bench) -> None:
    bench.write(PART + 1)
    bench.vendors.http.put("/_sandbox/options", json={"kodo": {"v2": False}}).raise_for_status()
    with pytest.raises(Unfit):
        bench.send(qiniu_resumable, msgspec.structs.replace(bench.ticket(None), key="k"))
    assert bench.calls("mkblk") == []


@pytest.mark.parametrize(
    "answer",
    [b'{"key": ""}', b'{"key": "k", "error": "quota"}', b'{"key": "k", "hash": "lmZkD4PsRVCzmCbKeZlDR0QNFWdx"}'],
)
def test_a_plain_answer_that_names_nothing_of_ours_is_not_believed(bench: Bench, answer: bytes) -> None:
    bench.write(5)
    with peer.Peer(peer.echo([], peer.answer(answer))) as server, pytest.raises(Retry, match="something between here"):
        bench.send(qiniu_form, QiniuTicket((server.url,), bench.ticket("k").token, "k"))


def test_one_host_that_knows_no_parts_is_not_the_last_word(bench: Bench) -> None:
    bench.write(PART + 1)
    good = bench.ticket("k")
    with peer.Peer(peer.echo([], peer.answer(b"{}", 404))) as server:
        receipt = bench.send(qiniu_resumable, replace(good, urls=(server.url, *good.urls)))
    assert receipt.verified == "qetag"


@pytest.mark.parametrize(("path", "asked"), [("/up/load", 0), ("", 1)])
def test_a_server_that_knows_the_form_only_is_left_to_it(bench: Bench, path: str, asked: int) -> None:
    bench.write(PART + 1)
    requests: list[tuple[bytes, bytes]] = []
    with peer.Peer(peer.echo(requests, peer.answer(b"{}", 404))) as server, pytest.raises(Unfit):
        bench.send(qiniu_resumable, QiniuTicket((f"{server.url}{path}",), bench.ticket("k").token, "k"))
    assert len(requests) == asked


def test_a_token_that_nobody_can_read_is_left_to_the_form(bench: Bench) -> None:
    bench.write(PART + 1)
    with pytest.raises(Unfit):
        bench.send(qiniu_resumable, QiniuTicket(("http://127.0.0.1:1",), "a:b:c"))
