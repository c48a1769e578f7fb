"""The digest: the same however the bytes came, and of one version."""

import os
import threading
from collections.abc import Iterator

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.errors import Changed, Stopped
from dumbwaiter.files.digest import BLOCK, Digest

SIZE = 400


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    path = tmp_path_factory.mktemp("digest") / "content"
    path.write_bytes(bytes(range(256)) + bytes(range(144)))
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def of(data: bytes, block: int) -> str:
    """Reckons it in the plainest way."""
    blocks = [data[start : start + block] for start in range(0, len(data), block)]
    if len(blocks) < 2:
        return f"xxh3:{xxhash.xxh3_128_hexdigest(data)}"
    return f"xxh3-4m:{xxhash.xxh3_128_hexdigest(b''.join(map(xxhash.xxh3_128_digest, blocks)))}"


@given(
    shown=st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).map(sorted), max_size=8),
    size=st.integers(0, SIZE),
    block=st.sampled_from([1, 7, 64, SIZE, 1 << 40]),
)
def test_the_digest_is_of_the_whole_whatever_was_shown_of_it(
    content: int, shown: list[list[int]], size: int, block: int
) -> None:
    whole = os.pread(content, size, 0)
    digest = Digest(block)
    for start, end in shown:
        digest.observe(start, whole[start:end])
    assert digest.finish(content, size) == of(whole, block)


def test_what_was_shown_is_not_read_again(content: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.pread(content, SIZE, 0)
    digest = Digest(100)
    for start in (200, 0, 100, 300, 0):  # side by side, and one part twice
        digest.observe(start, memoryview(whole)[start : start + 100])
    monkeypatch.delattr(os, "preadv")
    assert digest.finish(content, SIZE) == digest.text(SIZE) == of(whole, 100)


def test_many_threads_may_show_it_bytes() -> None:
    whole = os.urandom(1 << 20)
    digest = Digest(1 << 16)
    left = iter(range(0, len(whole), 1000))  # no piece ends with a block

    def show() -> None:
        for start in left:
            digest.observe(start, whole[start : start + 1000])

    with open(os.memfd_create("whole"), "r+b") as file:
        file.write(whole)
        file.flush()
        threads = [threading.Thread(target=show) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert digest.finish(file.fileno(), len(whole)) == of(whole, 1 << 16)


@pytest.mark.parametrize("size", [0, 10, BLOCK, BLOCK + 1])
def test_a_digest_says_of_which_kind_it_is(size: int) -> None:
    digest = Digest()
    digest.observe(0, bytes(size))
    assert digest.text(size) == of(bytes(size), BLOCK)


def test_a_file_that_ends_early_has_no_digest(content: int) -> None:
    with pytest.raises(Changed, match="the file became shorter"):
        Digest().finish(content, SIZE + 1)


def test_reading_ends_when_it_is_to_stop(content: int) -> None:
    with pytest.raises(Stopped):
        Digest().finish(content, SIZE, lambda: True)
