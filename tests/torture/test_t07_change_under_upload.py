"""T07: a file that changes while a chosen piece of it is on its way. No two versions meet, and the last one arrives."""

import os
from collections.abc import Callable, Iterator
from itertools import product

import pytest

from ledger import KIB, MIB, PROVIDERS, Ledger
from program import Program

POINTS = 10
SIZE = POINTS * 4 * MIB - 5  # as many pieces, of which the last is a little shorter
PIECE = {"netease": "nos.put", "careyshop-sts": "oss.part"}  # one after another; side by side


def append(book: Ledger, place: str) -> None:
    book.append(place, book.numbers.randbytes(70 * KIB))


def truncate(book: Ledger, place: str) -> None:
    content = book.path(place).read_bytes()[: SIZE // 3]
    book.note(place, content)
    os.truncate(book.path(place), len(content))


def empty(book: Ledger, place: str) -> None:
    book.note(place, b"")
    os.truncate(book.path(place), 0)


def rewrite(book: Ledger, place: str) -> None:
    """Of the same size, so that nothing but the time tells."""
    book.write(place, book.numbers.randbytes(SIZE), whole=False)


def rename_over(book: Ledger, place: str) -> None:
    book.write(place, book.numbers.randbytes(SIZE))


def recreate(book: Ledger, place: str) -> None:
    book.path(place).unlink()
    book.write(place, book.numbers.randbytes(9 * MIB), whole=False)


def delete(book: Ledger, place: str) -> None:
    book.delete(place)


def rename(book: Ledger, place: str) -> None:
    book.rename(place)


CHANGES = [append, truncate, empty, rewrite, rename_over, recreate, delete, rename]


@pytest.fixture
def book(program: Program) -> Iterator[Ledger]:
    program.start()
    made = Ledger(program, "change under upload")
    yield made
    assert program.stop() == 0
    assert made.complaints() == []
    assert "Traceback" not in program.log.read_text()


def meets(book: Ledger, place: str, point: int, change: Callable[[Ledger, str], None]) -> None:
    """Uploads a file that changes while its piece number `point` is on its way, and waits until all is quiet."""
    program = book.program
    program.vendors.http.delete("/_sandbox/log").raise_for_status()
    call = PIECE[place.partition("/")[0]]
    program.vendors.faults(f"{call}:slow=8m@{point + 1}")  # half a second
    book.write(place, book.numbers.randbytes(SIZE))
    program.until(lambda: any(one["fault"] for one in program.vendors.log()))
    change(book, place)
    assert program("wait").returncode == 0


def judge(book: Ledger, place: str, change: Callable[[Ledger, str], None]) -> None:
    """What is told of the version that is no more, and of the one that is there."""
    program = book.program
    last, *others = reversed(program.facts("status", book.path(place)))
    gone, replaced = "gone before it was sent", "replaced by a newer version"
    reasons = {delete: {gone}, rename: {gone}, recreate: {gone, replaced}}.get(change, {replaced})
    assert last["state"] == "superseded", (place, last)
    assert last["error"] in reasons, (place, last)
    assert [one["state"] for one in others] == ([] if reasons == {gone} else ["done"]), (place, others)
    assert book.at_the_providers().get(place) == book.standing.get(place), place


@pytest.mark.parametrize(
    ("provider", "point", "changes"),
    [
        ("netease", 4, [append, rewrite, delete]),
        ("careyshop-sts", 9, [truncate, rename_over, recreate]),
        *(pytest.param(*row, CHANGES, marks=pytest.mark.torture) for row in product(PIECE, range(POINTS))),
    ],
)
def test_t07_a_change_while_a_piece_is_sent_leaves_whole_versions_only(
    book: Ledger, provider: str, point: int, changes: list[Callable[[Ledger, str], None]]
) -> None:
    for change in changes:
        place = f"{provider}/{change.__name__}.bin"
        meets(book, place, point, change)
        judge(book, place, change)
    assert book.program("failed").returncode == 0


def test_t07_files_of_no_bytes_go_up_or_are_refused_with_words(book: Ledger) -> None:
    places = {name: f"{name}/empty.{'jpg' if name == 'xinhua' else 'bin'}" for name in PROVIDERS}
    for place in places.values():
        book.write(place, b"")
    refused = {places[name] for name, (_, takes) in PROVIDERS.items() if not takes}
    book.program.until(lambda: book.program("wait", "--timeout", "1s").returncode in {0, 20})
    told = {f"{one['watch']}/{one['path']}": one["error"] for one in book.program.facts("failed")}
    assert told.keys() == refused
    assert all("0 bytes" in sentence for sentence in told.values()), told
    for place in refused:
        del book.standing[place]
