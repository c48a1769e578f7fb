"""The daily copy: made beside a daemon at work. torture/test_t21_journal_harm.py puts it back."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from dumbwaiter.errors import JournalTrouble
from dumbwaiter.store.backup import ROOM, back_up
from journals import in_file


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
