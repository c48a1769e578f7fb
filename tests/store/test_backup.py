"""The daily copy: made beside a daemon at work, and put back. torture/test_t21_journal_harm.py does it to a whole program."""

import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from dumbwaiter.errors import Failure, JournalTrouble
from dumbwaiter.store.backup import AGE, ROOM, back_up, recover
from journals import WORKER, Book, in_file


def test_without_room_there_is_no_copy_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = in_file(tmp_path / "state")
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=ROOM))
    with pytest.raises(JournalTrouble) as told:
        back_up(url, 0.0)
    assert str(told.value) == (
        f"no room for a copy of the journal: three times its size has to be free in {tmp_path}/state"
    )


@pytest.mark.parametrize("what", ["journal.db", ""], ids=["the journal", "its folder"])
def test_what_was_removed_under_the_daemon_cannot_be_copied_and_that_is_said(tmp_path: Path, what: str) -> None:
    url = in_file(tmp_path / "state")
    gone = tmp_path / "state" / what
    gone.unlink() if what else shutil.rmtree(gone)
    with pytest.raises(JournalTrouble, match=r"the journal cannot be copied: .*No such file"):
        back_up(url, 0.0)


def test_a_copy_is_made_once_a_day_with_nothing_in_it_that_ends(tmp_path: Path) -> None:
    """What a ticket permits is over by then, or is another's to use; a killed attempt's remains are in no way."""
    url, copy, now = in_file(tmp_path), tmp_path / "journal.db.backup", time.time()
    fresh = tmp_path / "journal.db.backup.new"
    fresh.write_bytes(b"left by a kill")
    fresh.chmod(0o666)
    with Book(url) as book:
        id_ = book.leased("a")
        book.lease(WORKER, id_).name(
            100.0, key="a", grant='{"ticket":"%s"}' % ("secret ticket" * 1000)
        )  # on pages of its own
        book.lease(WORKER, id_).advance(100.0, checkpoint='{"offset":4}', sent=4, more=4, resent=0)
        assert back_up(url, now)
        assert not back_up(url, now + AGE / 2)
        os.utime(copy, (now, now))
        assert not back_up(url, now + AGE - 1)
        book.done("b")
        assert back_up(url, now + AGE)
    assert not fresh.exists()
    assert copy.stat().st_mode & 0o777 == 0o600
    assert b"secret ticket" not in copy.read_bytes()
    (tmp_path / "state").mkdir()
    copy.rename(tmp_path / "state/journal.db")
    with Book(url.set(database=str(tmp_path / "state/journal.db"))) as book:
        rows = book.rows('SELECT state, "grant", checkpoint, lease FROM jobs ORDER BY id')
        assert [tuple(row) for row in rows] == [("pending", None, None, None), ("done", None, None, None)]


def test_a_damaged_journal_is_put_aside_and_its_copy_takes_its_place(tmp_path: Path) -> None:
    url, journal, copy = in_file(tmp_path), tmp_path / "journal.db", tmp_path / "journal.db.backup"

    def there() -> dict[str, bytes]:
        return {
            path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix not in {".db-wal", ".db-shm"}
        }

    def refused(words: str, *, anew: bool = False) -> None:
        before = there()
        with pytest.raises(Failure, match=words):
            recover(str(journal), anew=anew)
        assert there() == before

    with Book(url) as book:
        book.done("a")
        back_up(url, time.time())
    for anew in (False, True):
        refused("the journal is sound", anew=anew)
    good = copy.read_bytes()
    journal.write_bytes(damaged := b"no database" * 1000)
    (tmp_path / "journal.db-wal").write_bytes(b"its log")
    copy.write_bytes(damaged)
    refused("is damaged as well")
    copy.unlink()
    refused("there is no copy of the journal")
    copy.write_bytes(good)
    aside = Path(recover(str(journal), anew=False))
    assert aside.read_bytes() == damaged
    assert Path(f"{aside}-wal").read_bytes() == b"its log"
    assert not (tmp_path / "journal.db-wal").exists()
    assert journal.read_bytes() == copy.read_bytes() == good
    assert journal.stat().st_mode & 0o777 == 0o600
    journal.write_bytes(damaged)
    recover(str(journal), anew=True)
    assert not journal.exists()
    assert copy.read_bytes() == good
