"""The cache on disk: it gives back what it was given, or nothing; its limits hold; a crash and a second user do no harm."""

import os
import random
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dumbwaiter import cache_hits
from dumbwaiter.cache_hits import Hits
from dumbwaiter.errors import Failure
from dumbwaiter.model import KIB, MIB
from dumbwaiter_fs.cache import _HEAD, AGE, BLOCK, LEFT, LONGEST, VALIDATOR_MAX, Block, Cache, check_owner
from dumbwaiter_fs.hot_blocks import SLOTS, HotBlocks
from dumbwaiter_fs.memory_cache import LIMIT, MemoryCache
from fs.world import until
from stranger import UID, needs_root

NAME, OTHER = "aa" * 20, "ab" * 20
WHOLE = Block('"etag"', random.Random(4).randbytes(BLOCK))
WRITER = """import sys
from dumbwaiter_fs.cache import BLOCK, Block, Cache, check_owner
cache, number = Cache(sys.argv[1], 4 << 20, spare=0), int(sys.argv[2])
for turn in range(60):
    index = turn % 30
    block = cache.get("aa" * 20, index)
    assert block is None or block.data == bytes([index]) * BLOCK
    cache.put("aa" * 20, index, Block("validator", bytes([index]) * BLOCK))
"""


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "blocks"


@pytest.fixture
def cache(folder: Path) -> Cache:
    return Cache(str(folder), 64 * MIB, spare=0)


def test_a_block_comes_back_also_after_a_restart(cache: Cache, folder: Path) -> None:
    last = Block("", b"the end")
    cache.put(NAME, 0, WHOLE)
    cache.put(NAME, 0x1F, last)
    for again in (cache, Cache(str(folder), 64 * MIB, spare=0)):
        assert (again.get(NAME, 0), again.get(NAME, 0x1F)) == (WHOLE, last)
        assert again.get(NAME, 1) is None
        assert again.get(OTHER, 0) is None


def test_what_is_kept_is_the_owners_alone(cache: Cache, folder: Path) -> None:
    umask = os.umask(0)
    try:
        cache.put(NAME, 0, WHOLE)
    finally:
        os.umask(umask)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())}
    assert modes == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files(folder)} == {0o600}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(position=st.integers(0, _HEAD.size + len('"etag"') + BLOCK - 1), bit=st.integers(0, 7))
def test_one_wrong_bit_anywhere_is_noticed(cache: Cache, folder: Path, position: int, bit: int) -> None:
    cache.put(NAME, 0, WHOLE)
    (file,) = files(folder)
    data = bytearray(file.read_bytes())
    data[position] ^= 1 << bit
    file.write_bytes(data)
    assert cache.get(NAME, 0) is None
    assert files(folder) == [], "so that its bytes are fetched again"


@pytest.mark.parametrize("size", [0, 5, _HEAD.size, 1000, BLOCK])
def test_a_block_that_was_cut_off_is_noticed(cache: Cache, folder: Path, size: int) -> None:
    cache.put(NAME, 0, WHOLE)
    os.truncate(files(folder)[0], size)
    assert cache.get(NAME, 0) is None


def test_a_block_under_another_name_is_noticed(cache: Cache, folder: Path) -> None:
    cache.put(NAME, 0, WHOLE)
    (file,) = files(folder)
    file.rename(file.with_name(f"{NAME}-1"))
    assert cache.get(NAME, 1) is None


def test_what_is_longest_unused_goes_first_and_the_limit_holds(folder: Path) -> None:
    cache = Cache(str(folder), 4 * MIB, spare=0)
    for index in range(40):
        cache.put(NAME, index, WHOLE)
        for number, path in enumerate(sorted(files(folder), key=lambda path: path.stat().st_mtime)):
            os.utime(path, (0, time.time() - 10_000 + number))  # a use is noted once a minute; here at each step
        assert cache.get(NAME, 0) == WHOLE, "used again and again"
        assert sum(path.stat().st_size for path in files(folder)) <= 4 * MIB
    kept = [index for index in range(40) if cache.get(NAME, index)]
    assert len(kept) > 8
    assert kept == [0, *range(41 - len(kept), 40)]


def test_of_what_was_used_at_one_time_only_as_much_goes_as_must(folder: Path) -> None:
    cache = Cache(str(folder), 64 * MIB, spare=0)
    for index in range(40):
        cache.put(NAME, index, WHOLE)
    noon = time.time() - 10_000
    for number, path in enumerate(files(folder)):
        os.utime(path, (noon, noon + (number < 5)))
    tight = Cache(str(folder), 4 * MIB, spare=0)
    tight.put(NAME, 40, WHOLE)
    kept = sum(path.stat().st_blocks * 512 for path in files(folder))
    assert 2 * MIB < kept <= 4 * MIB
    assert sum(path.stat().st_mtime == noon + 1 for path in files(folder)) == 5


def test_there_are_no_more_files_than_a_sweep_goes_through(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dumbwaiter_fs.cache.FILES_MAX", 20)
    cache = Cache(str(folder), 64 * MIB, spare=0)
    for index in range(60):
        cache.put(NAME, index, Block("", b"x"))
        assert len(files(folder)) <= 20
    assert cache.get(NAME, 59) is not None


def test_what_nobody_used_for_long_goes(folder: Path, cache: Cache) -> None:
    cache.put(NAME, 0, WHOLE)
    cache.put(NAME, 1, WHOLE)
    old = time.time() - AGE - 1
    os.utime(files(folder)[0], (old, old))
    again = Cache(str(folder), 64 * MIB, spare=0)
    again.put(NAME, 2, WHOLE)
    assert [index for index in range(3) if again.get(NAME, index)] == [1, 2]


def test_free_space_is_left_to_others(folder: Path, cache: Cache) -> None:
    cache.put(NAME, 0, WHOLE)
    spare = shutil.disk_usage(folder).free + 100 * MIB
    tight = Cache(str(folder), 64 * MIB, spare=spare)
    tight.put(NAME, 1, WHOLE)
    assert files(folder) == [], "what was there made room too"


@pytest.mark.parametrize("limit", [1, BLOCK, 600 * KIB, MIB])
def test_a_small_limit_holds_as_well(folder: Path, limit: int) -> None:
    cache = Cache(str(folder), limit, spare=0)
    for index in range(20):
        cache.put(NAME, index, Block("", WHOLE.data[: BLOCK - 100]))
        assert sum(path.stat().st_size for path in files(folder)) <= limit


def test_what_a_crash_left_half_written_is_cleared_and_never_read(folder: Path, cache: Cache) -> None:
    cache.put(NAME, 0, WHOLE)
    left = files(folder)[0].with_name(".4711-1")
    left.write_bytes(b"half")
    os.utime(left, (0, time.time() - LEFT - 1))
    Cache(str(folder), 64 * MIB, spare=0).put(NAME, 1, WHOLE)
    assert left not in files(folder)
    assert len(files(folder)) == 2


def test_a_version_is_forgotten_and_no_other(cache: Cache) -> None:
    for index in range(3):
        cache.put(NAME, index, WHOLE)
        cache.put(OTHER, index, WHOLE)
    cache.drop(NAME)
    assert [cache.get(NAME, index) for index in range(3)] == [None] * 3
    assert [cache.get(OTHER, index) for index in range(3)] == [WHOLE] * 3


def test_a_folder_that_cannot_be_made_is_a_cache_that_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = Cache(str(tmp_path / "file" / "blocks"), MIB)
    cache.put(NAME, 0, WHOLE)
    cache.put(NAME, 0, WHOLE)
    assert cache.get(NAME, 0) is None
    cache.drop(NAME)


def test_processes_that_share_it_get_whole_blocks_or_none(folder: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(folder), str(number)], stderr=subprocess.PIPE)
        for number in range(4)
    ]
    assert [writer.communicate(timeout=60)[1] for writer in writers] == [b""] * 4
    assert sum(path.stat().st_size for path in files(folder)) <= 4 * MIB + 3 * MIB, "each knows of its own only"


# Hot blocks: what is in memory is given out without a wait


@pytest.fixture
def hot(cache: Cache) -> Iterator[HotBlocks]:
    hot = HotBlocks(cache, None)
    yield hot
    hot.close()


def got(hot: HotBlocks, index: int, name: str = NAME) -> Block | None:
    view = hot.get(name, index)
    return Block(view.validator, bytes(view.data)) if view else None


def numbered(index: int) -> Block:
    return Block('"etag"', bytes([index]) * BLOCK)


def test_a_block_is_got_as_it_was_put(cache: Cache, hot: HotBlocks) -> None:
    last = Block("m" * VALIDATOR_MAX, b"the end")
    cache.put(NAME, 0, WHOLE)
    cache.put(NAME, 1, last)
    assert [got(hot, index) for index in (0, 1, 0, 2)] == [WHOLE, last, WHOLE, None]


def test_where_no_thread_can_be_had_the_use_is_noted_with_a_later_one(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put(NAME, 0, WHOLE)
    cache.put(NAME, 1, WHOLE)
    noted: list[dict[tuple[str, int], None]] = []
    monkeypatch.setattr(cache, "touch", noted.append)
    hot = HotBlocks(cache, None)

    def refused(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refused)
        assert got(hot, 0) == WHOLE
    assert got(hot, 1) == WHOLE
    hot.close()
    assert noted == [{(NAME, 0): None, (NAME, 1): None}]


def test_a_block_is_good_until_five_others_are_got(cache: Cache, hot: HotBlocks) -> None:
    for index in range(2 * SLOTS):
        cache.put(NAME, index, numbered(index))
    for first in range(SLOTS + 1):
        views = [hot.get(NAME, index) for index in range(first, first + SLOTS)]
        for index, view in enumerate(views, first):
            assert view is not None
            assert view.data == numbered(index).data


def test_a_block_that_is_got_once_more_is_good_as_long_again(cache: Cache, hot: HotBlocks) -> None:
    for index in range(2 * SLOTS):
        cache.put(NAME, index, numbered(index))
    for index in (*range(SLOTS), 0):
        view = hot.get(NAME, index)
    for index in range(SLOTS, 2 * SLOTS - 1):
        assert got(hot, index) == numbered(index)
    assert view is not None
    assert view.data == numbered(0).data


def test_no_buffer_is_lost_by_what_is_not_there_or_is_forgotten(cache: Cache, hot: HotBlocks) -> None:
    for index in range(SLOTS):
        cache.put(NAME, index, numbered(index))
    for _ in range(2):
        assert [got(hot, SLOTS) for _ in range(SLOTS)] == [None] * SLOTS
        assert [got(hot, index) for index in range(SLOTS)] == [numbered(index) for index in range(SLOTS)]
        hot.drop(NAME)


def test_a_fifo_in_the_place_of_a_block_holds_nobody(cache: Cache, hot: HotBlocks, folder: Path) -> None:
    cache.put(NAME, 0, WHOLE)
    (block,) = files(folder)
    block.unlink()
    os.mkfifo(block)
    os.stat(block)  # the kernel knows it, so that no look at the disk is needed
    assert got(hot, 0) is None
    assert cache.get(NAME, 0) is None


def test_what_is_being_read_stays_though_its_version_is_forgotten(cache: Cache, hot: HotBlocks) -> None:
    for index in range(2):
        cache.put(NAME, index, numbered(index))
    view = hot.get(NAME, 0)
    hot.drop(NAME)
    assert hot.get(NAME, 1) is not None
    assert view is not None
    assert view.data == numbered(0).data


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(position=st.integers(0, _HEAD.size + len('"etag"') + BLOCK - 1), bit=st.integers(0, 7))
def test_a_block_with_one_wrong_bit_is_not_got(cache: Cache, folder: Path, position: int, bit: int) -> None:
    cache.put(NAME, 0, WHOLE)
    (file,) = files(folder)
    data = bytearray(file.read_bytes())
    data[position] ^= 1 << bit
    file.write_bytes(data)
    assert got(HotBlocks(cache, None), 0) is None
    assert files(folder) == [file], "whoever may wait for the disk clears it away"


@pytest.mark.parametrize("size", [0, 5, _HEAD.size, 1000, BLOCK])
def test_a_block_that_was_cut_off_is_not_got(cache: Cache, hot: HotBlocks, folder: Path, size: int) -> None:
    cache.put(NAME, 0, WHOLE)
    os.truncate(files(folder)[0], size)
    assert got(hot, 0) is None


def test_what_is_dropped_is_not_got_any_more(cache: Cache, hot: HotBlocks) -> None:
    for name in (NAME, OTHER):
        cache.put(name, 0, WHOLE)
        assert got(hot, 0, name) == WHOLE
    cache.drop(NAME)
    hot.drop(NAME)
    assert got(hot, 0) is None
    assert got(hot, 0, OTHER) == WHOLE


def test_each_use_without_a_wait_is_noted_as_well(
    cache: Cache, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dumbwaiter_fs.hot_blocks.LATER", 0.01)
    for index in range(4):
        cache.put(NAME, index, WHOLE)
        os.utime(files(folder)[index], (1.0, 1.0))
    count = Hits(str(tmp_path))
    counted = HotBlocks(cache, count)

    def noted() -> tuple[int, int]:
        count.close()
        return cache_hits.read(str(tmp_path))

    for index in (0, 1):
        assert got(counted, index) == got(counted, index) == WHOLE
        until(lambda index=index: noted() == (index + 1, 0))  # type: ignore[misc]
        assert files(folder)[index].stat().st_mtime > 1.0
        os.utime(files(folder)[index], (1.0, 1.0))  # a use is noted once
    assert got(counted, 2) == WHOLE
    counted.close()
    assert noted() == (3, 0)
    assert [path.stat().st_mtime > 1.0 for path in files(folder)] == [False, False, True, False]


def test_a_block_that_comes_while_room_is_made_is_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(str(tmp_path / "blocks"), 64 * MIB, spare=0)
    sweep, begun, waiting = cache._sweep, threading.Event(), threading.Event()

    def slowly() -> tuple[int, int]:
        begun.set()
        assert waiting.wait(10)
        return sweep()

    class Told(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            waiting.set()
            return super().wait(timeout)

    monkeypatch.setattr("dumbwaiter_fs.cache.SWEEP", 60.0)
    monkeypatch.setattr(cache, "_lock", Told())
    monkeypatch.setattr(cache, "_sweep", slowly)
    other = threading.Thread(target=cache.put, args=(NAME, 0, Block("e", b"one")))
    other.start()
    assert begun.wait(10)
    cache.put(NAME, 1, Block("e", b"two"))
    other.join()
    assert [cache.get(NAME, index) for index in (0, 1)] == [Block("e", b"one"), Block("e", b"two")]


def given_away(path: Path) -> None:
    for one in (path, *path.rglob("*")):
        os.chown(one, UID, UID, follow_symlinks=False)


@needs_root
def test_blocks_that_somebody_else_prepared_are_not_read(cache: Cache, folder: Path) -> None:
    cache.put(NAME, 0, WHOLE)
    cache.put(OTHER, 0, WHOLE)
    given_away(folder / NAME[:2])
    again = Cache(str(folder), 64 * MIB, spare=0)
    assert again.get(NAME, 0) is None
    assert again.get_nowait(NAME, 0, bytearray(LONGEST)) is None
    again.touch([(NAME, 0)])
    again.drop(NAME)
    again.put(NAME, 1, WHOLE)
    assert len(files(folder / NAME[:2])) == 1
    assert again.get(OTHER, 0) == WHOLE


def test_no_file_behind_a_link_is_touched(cache: Cache, folder: Path, tmp_path: Path) -> None:
    (victim := tmp_path / "photos").mkdir()
    (victim / "a.jpg").write_bytes(b"a")
    os.utime(victim / "a.jpg", (0, 0))
    folder.mkdir()
    (folder / NAME[:2]).symlink_to(victim)
    cache.put(NAME, 0, WHOLE)  # which sweeps first
    assert files(victim) == [victim / "a.jpg"]


@needs_root
@pytest.mark.parametrize("place", [".", "blocks"])
def test_a_cache_folder_of_somebody_else_is_refused(tmp_path: Path, place: str) -> None:
    check_owner(str(tmp_path / "none"))
    (tmp_path / "blocks").mkdir()
    check_owner(str(tmp_path))
    given_away(tmp_path / place)
    with pytest.raises(Failure, match=r"the cache folder .* belongs to somebody else: name another one with --cache"):
        check_owner(str(tmp_path))
    (tmp_path / "link").symlink_to("/root")
    os.chown(tmp_path / "link", UID, UID, follow_symlinks=False)
    with pytest.raises(Failure, match="belongs to somebody else"):
        check_owner(str(tmp_path / "link"))


# In memory


def test_memory_holds_its_limit_of_what_was_used_last() -> None:
    memory, last = MemoryCache(), LIMIT // BLOCK
    for index in range(last):
        memory.put(NAME, index, WHOLE)
    memory.put(NAME, 1, WHOLE)  # once more takes no room
    assert memory.get(NAME, 0) is WHOLE  # and is not the longest unused any more
    memory.put(OTHER, 0, WHOLE)
    assert [index for index in range(last) if memory.get(NAME, index) is None] == [2]
    memory.drop(NAME)
    for index in range(1, last):
        memory.put(OTHER, index, WHOLE)
    assert [(memory.get(NAME, index), memory.get(OTHER, index)) for index in range(last)] == [(None, WHOLE)] * last
