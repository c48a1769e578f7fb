"""Rescans against a real journal: what is passed by, what is looked into, and what is never passed by."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import journals
from dumbwaiter.files.ignore import Rules
from dumbwaiter.lifecycle import GONE
from dumbwaiter.model import Stamp
from dumbwaiter.store.arrivals import Candidate
from dumbwaiter.watch import rescan, survey
from dumbwaiter.watch.rescan import Rescan
from dumbwaiter.watch.survey import Survey
from journals import WORKER, Book, in_file
from tree import make

database = journals.database
postgres = journals.postgres
book = journals.book


class Watched:
    """A watched folder and its journal."""

    def __init__(self, book: Book, root: Path) -> None:
        self.book = book
        self.root = root
        self.rules = Rules()
        self.provider = "vod"
        self.looked: list[str] = []

    def rescan(self) -> set[str]:
        """Returns what is not known, and notes what may be noted."""
        self.looked.clear()
        fresh: set[str] = set()
        passage = Rescan(self.book.folders, "w", str(self.root), self.rules, self.provider)
        known = self.book.folders.known

        while (step := passage.step()) is not None:
            fresh |= {path for path, _ in step.fresh}
            self.looked += [path for path, _ in step.fresh] + [one.folder for one in step.surveyed]
            if step.surveyed:
                self.book.survey("w", step.surveyed)
        for page in passage.gone():
            self.book.unsurvey("w", page)
        assert known == self.book.folders.known
        return fresh

    def take(self, paths: set[str]) -> list[int]:
        """Makes a job of each, as it is now."""
        ids: list[int] = self.book.enqueue(
            [Candidate("w", path, "vod", Stamp.of(os.lstat(self.root / path))) for path in sorted(paths)], 1.0
        )
        return ids


@pytest.fixture
def watched(book: Book, tmp_path: Path) -> Watched:
    (tmp_path / "w").mkdir()
    return Watched(book, tmp_path / "w")


def test_folders_whose_files_are_known_are_passed_by(watched: Watched) -> None:
    raw = os.fsdecode(b"b/\xff")
    make(watched.root, "a", raw, "b/d/e", "junk/x.part")
    assert watched.rescan() == {"a", raw, "b/d/e"}
    assert watched.rescan() == {"a", raw, "b/d/e"}
    watched.take({"a", raw, "b/d/e"})
    assert watched.rescan() == set()
    assert sorted(watched.looked) == ["", "b", "b/d"]
    assert watched.rescan() == set()
    assert watched.looked == []
    assert watched.book.folders.surveyed("w") == (4, 3)


def test_a_folder_with_one_file_that_is_not_queued_is_looked_into_again(watched: Watched) -> None:
    make(watched.root, "f/a", "f/b")
    watched.take({"f/a"})
    for _ in range(3):
        assert watched.rescan() == {"f/b"}


def test_a_file_that_changes_is_found(watched: Watched) -> None:
    make(watched.root, "f/a", "g/b")
    watched.take(watched.rescan())
    watched.rescan()
    (watched.root / "f/a").write_bytes(b"longer")
    assert watched.rescan() == {"f/a"}
    assert watched.rescan() == {"f/a"}


def test_another_provider_wants_what_the_first_one_has(watched: Watched) -> None:
    make(watched.root, "a", "f/b")
    watched.take(watched.rescan())
    assert watched.rescan() == set()
    watched.provider = "oss"
    assert watched.rescan() == {"a", "f/b"}
    watched.provider = "vod"
    assert watched.rescan() == set()


def test_other_rules_look_into_every_folder(watched: Watched) -> None:
    make(watched.root, "f/a.jpg", "f/b.txt")
    watched.rules = Rules(include=["*.jpg"])
    watched.take(watched.rescan())
    assert watched.rescan() == watched.rescan() == set()
    watched.rules = Rules()
    assert watched.rescan() == {"f/b.txt"}


def test_a_version_that_was_gone_before_it_was_sent_is_wanted_again(watched: Watched) -> None:
    make(watched.root, "a")
    (id_,) = watched.take({"a"})
    watched.book.claim(WORKER, 2.0, 1)
    watched.book.lease(WORKER, id_).supersede(2.0, reason=GONE)
    assert watched.rescan() == {"a"}
    assert len(watched.take({"a"})) == 1
    assert watched.rescan() == set()


def test_a_folder_whose_file_was_gone_is_looked_into_when_it_is_back_as_it_was(watched: Watched) -> None:
    make(watched.root, "d/a")
    (id_,) = watched.take(watched.rescan())
    watched.rescan()
    watched.book.claim(WORKER, 2.0, 1)
    watched.book.lease(WORKER, id_).supersede(2.0, reason=GONE)
    assert watched.rescan() == {"d/a"}


def test_a_forgotten_version_is_not_wanted_again(watched: Watched) -> None:
    make(watched.root, "a")
    watched.book.forget(watched.take({"a"}), 2.0)
    assert watched.rescan() == watched.rescan() == set()


def test_notes_on_folders_that_are_no_more_go(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rescan, "PAGE", 2)
    make(watched.root, *(f"{number}/a" for number in range(5)), "1/b/c")
    watched.take(watched.rescan())
    watched.rescan()
    assert watched.book.folders.surveyed("w") == (7, 6)
    shutil.rmtree(watched.root / "1")
    shutil.rmtree(watched.root / "4")
    watched.rescan()
    assert watched.book.folders.surveyed("w") == (4, 3)
    assert watched.rescan() == set()
    assert watched.looked == []


def test_watches_of_similar_names_have_notes_of_their_own(watched: Watched) -> None:
    make(watched.root, "a")
    watched.take(watched.rescan())
    watched.rescan()
    folders = watched.book.folders
    assert [folders.surveyed(name)[0] for name in ("w", "ww", "w0", "v")] == [1, 0, 0, 0]


# Helpers


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    make(root, "top", *(f"{one}/{two}/file" for one in range(40) for two in range(5)), "deep/" + "x/" * 30 + "end")
    make(root, os.fsdecode(b"\xff/\xfe"), "no.part")
    return root


def surveyed(root: Path, *, large: bool) -> list[tuple[str, int, bytes]]:
    passage = Survey(str(root), Rules(exclude=["/7/"]), large=large)
    found = []
    while batch := passage.take():
        found += [(one.folder, one.files, one.digest) for one in batch]
    return sorted(found)


def test_helpers_find_the_same(tree: Path) -> None:
    alone = surveyed(tree, large=False)
    assert len(alone) == 1 + 39 * 6 + 31 + 1
    assert surveyed(tree, large=True) == alone


def test_a_path_too_long_for_an_order_is_gone_through_here(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "ORDER", 3)
    monkeypatch.setattr(survey, "LISTED", 8)
    assert surveyed(tree, large=True) == surveyed(tree, large=False)


def test_without_a_process_to_be_had_it_is_done_here(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = surveyed(tree, large=False)

    def refuse(*_values: object, **_named: object) -> None:
        raise BlockingIOError

    monkeypatch.setattr(survey.subprocess, "Popen", refuse)
    assert surveyed(tree, large=True) == alone


def test_helpers_that_may_not_be_nice_find_the_same(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a service, whose system calls are filtered."""
    alone = surveyed(tree, large=False)
    (tmp_path / "own").mkdir()
    refusal = "import os\n\ndef refuse(_more):\n    raise PermissionError\n\nos.nice = refuse\n"
    (tmp_path / "own/sitecustomize.py").write_text(refusal)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/own:{os.environ.get('PYTHONPATH', '')}")
    assert surveyed(tree, large=True) == alone


@pytest.fixture
def begun(tree: Path) -> Iterator[Survey]:
    passage = Survey(str(tree), Rules(), large=True)
    passage._found = passage._shared()
    while not passage._helpers:
        next(passage._found)
    yield passage
    passage.close()


def drain(passage: Survey) -> None:
    while passage.take():
        pass


def test_a_helper_that_dies_ends_the_survey_with_an_error(begun: Survey) -> None:
    os.kill(begun._helpers[0]._process.pid, signal.SIGKILL)
    with pytest.raises(OSError, match="a helper ended"):
        drain(begun)
    assert all(helper._process.returncode is not None for helper in begun._helpers)


def test_a_survey_that_is_closed_leaves_no_process(begun: Survey) -> None:
    begun.close()
    drain(begun)
    assert all(helper._process.returncode is not None for helper in begun._helpers)


def test_a_helper_gets_no_variable_that_may_hold_a_secret(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOD_SECRET", "planted")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    helper = survey._Helper(str(tree), Rules())
    given: list[bytes] = [b""]
    while given == [b""]:  # it may be in the middle of becoming another program
        given = Path(f"/proc/{helper._process.pid}/environ").read_bytes().split(b"\0")
    helper.end()
    assert b"VOD_SECRET=planted" not in given
    assert b"LC_ALL=C.UTF-8" in given


def test_a_helper_ends_with_its_daemon(tree: Path) -> None:
    helper = survey._Helper(str(tree), Rules())
    helper._input.close()
    assert helper._process.wait(30) == 0
    helper.output.close()


def test_large_trees_get_helpers(tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rescan, "LARGE", 100)
    with Book(in_file(tmp_path / "state")) as book:
        watched = Watched(book, tree)
        watched.take(watched.rescan())
        watched.rescan()
        (tree / "3/2/file").write_bytes(b"changed")
        passage = Rescan(book.folders, "w", str(tree), Rules(), "vod")
        fresh = []
        while (step := passage.step()) is not None:
            fresh += [path for path, _ in step.fresh]
        assert fresh == ["3/2/file"]
        assert len(passage._survey._helpers) == survey.HELPERS
