"""Cache hits: counted by mounts, read by the daemon."""

import os
from fcntl import LOCK_EX, flock
from pathlib import Path

import pytest

from dumbwaiter import cache_hits
from dumbwaiter.cache_hits import Hits
from fs.world import until
from stranger import UID


def test_several_mounts_count_into_one_file(tmp_path: Path) -> None:
    assert cache_hits.read(str(tmp_path)) == (0, 0)
    one, other = Hits(str(tmp_path)), Hits(str(tmp_path))
    for _ in range(5):
        one.add(hits=1)
        other.add(misses=2)
    one.close()
    other.close()
    assert cache_hits.read(str(tmp_path)) == (5, 10)
    again = Hits(str(tmp_path))
    again.add(hits=1)
    again.close()
    assert cache_hits.read(str(tmp_path)) == (6, 10)
    assert (tmp_path / "hits").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"short"])
def test_a_damaged_file_begins_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "hits").write_bytes(content)
    assert cache_hits.read(str(tmp_path)) == (0, 0)
    again = Hits(str(tmp_path))
    again.add(hits=3)
    again.close()
    assert cache_hits.read(str(tmp_path)) == (3, 0)


def test_the_file_follows_by_itself_and_its_folder_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "missing"
    one = Hits(str(folder))
    for _ in range(20):
        one.add(misses=1)
    until(lambda: cache_hits.read(str(folder)) == (0, 20))
    assert folder.stat().st_mode & 0o777 == 0o700


def test_who_counts_never_waits_for_the_file(tmp_path: Path) -> None:
    one = Hits(str(tmp_path))
    one.add(hits=1)
    with (tmp_path / "hits").open("wb") as held:
        flock(held, LOCK_EX)
        one.close()
        one.add(hits=1)
    one.close()
    assert cache_hits.read(str(tmp_path)) == (2, 0)


def test_a_folder_that_cannot_be_had_is_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    one = Hits(str(tmp_path / "file/folder"))
    one.add(hits=1)
    one.close()
    assert cache_hits.read(str(tmp_path / "file/folder")) == (0, 0)


@pytest.mark.parametrize("kind", ["link", "second name", "pipe", "theirs"])
def test_what_somebody_else_put_there_is_neither_written_nor_read(tmp_path: Path, kind: str) -> None:
    victim, hits = tmp_path / "victim", tmp_path / "hits"
    content = bytes(range(16))
    victim.write_bytes(content)
    match kind:
        case "link":
            hits.symlink_to(victim)
        case "second name":
            hits.hardlink_to(victim)
        case "pipe":
            os.mkfifo(hits)
        case _:
            if os.geteuid() != 0:
                pytest.skip("only root can give a file away")
            victim.rename(hits)
            os.chown(hits, UID, UID)
            victim = hits
    assert cache_hits.read(str(tmp_path)) == (0, 0)
    one = Hits(str(tmp_path))
    one.add(hits=1)
    one.close()
    assert victim.read_bytes() == content
