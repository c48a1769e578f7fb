"""Cache hits: counted by mounts, read by the daemon."""

from pathlib import Path

import pytest

from dumbwaiter import hits
from dumbwaiter.hits import Hits


def test_several_mounts_count_into_one_file(tmp_path: Path) -> None:
    assert hits.read(str(tmp_path)) == (0, 0)
    one, other = Hits(str(tmp_path)), Hits(str(tmp_path))
    for _ in range(5):
        one.add(hits=1)
        other.add(misses=2)
    one.close()
    other.close()
    assert hits.read(str(tmp_path)) == (5, 10)
    Hits(str(tmp_path)).add(hits=1)
    assert hits.read(str(tmp_path)) == (6, 10)
    assert (tmp_path / "hits").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"short"])
def test_a_damaged_file_begins_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "hits").write_bytes(content)
    assert hits.read(str(tmp_path)) == (0, 0)
    Hits(str(tmp_path)).add(hits=3)
    assert hits.read(str(tmp_path)) == (3, 0)


def test_a_folder_that_is_not_there_is_no_trouble(tmp_path: Path) -> None:
    one = Hits(str(tmp_path / "missing"))
    one.add(hits=1)
    one.close()
    assert hits.read(str(tmp_path / "missing")) == (0, 0)
