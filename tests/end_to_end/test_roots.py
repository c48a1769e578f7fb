"""Watched folders that go away and come back, or lie where they must not."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from program import Program, digest


@contextmanager
def lying(folder: Path | None, at: Path) -> Iterator[None]:
    """A folder mounted at another, as a disk would be; None: an empty disk."""
    if os.getuid():
        pytest.skip("only root may mount")
    subprocess.run(["mount", *(["--bind", folder] if folder else ["-t", "tmpfs", "none"]), at], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", at], check=True)


def watch(program: Program) -> dict[str, object]:
    found: dict[str, object] = next(one for one in program.status()["watches"] if one["name"] == "netease")
    return found


def test_t14_the_files_of_an_unmounted_disk_wait_for_it(program: Program, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    program.drop.mkdir(parents=True, exist_ok=True)
    with lying(disk, program.drop):
        program.vendors.faults("nos.put:503%100")
        program.start()
        (program.drop / "film.mov").write_bytes(b"film")
        program.until(lambda: any(job["attempts"] for job in program.status()["jobs"]))
    program.vendors.faults("")
    program.until(lambda: watch(program)["state"] == "away")
    assert "nothing is mounted there" in str(watch(program)["message"])
    assert program("retry", "--all").returncode == 0
    program.until(lambda: "is away" in str(program.status()["jobs"][0]["error"]))
    (job,) = program.status()["jobs"]
    assert job["state"] == "pending"
    # A daemon that starts without the disk knows from the journal that there was one.
    assert program.stop() == 0
    program.start()
    program.until(lambda: watch(program)["state"] == "away")
    with lying(disk, program.drop):
        program.until(lambda: program.stored() == {"film.mov": digest(b"film")})
        program.until(lambda: watch(program)["state"] == "watching")  # a job may look before the watcher does
        assert program.totals()["superseded"] == program.totals()["rejected"] == 0
        program.kill()


def test_t14_a_disk_that_comes_after_the_start_brings_its_own_rules(program: Program, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / ".dumbwaiterignore").write_text("secret*\n")
    program.drop.mkdir(parents=True, exist_ok=True)
    with lying(disk, program.drop):
        program.start()
        program.until(lambda: watch(program)["state"] == "watching")
        assert program("wait").returncode == 0
        assert program.stop() == 0
    program.start()
    program.until(lambda: watch(program)["state"] == "away")
    for name in ("secret.txt", "open.txt"):
        (disk / name).write_text(name)
    with lying(disk, program.drop):
        program.until(lambda: program.stored().keys() == {"open.txt"})
        for name in ("secret too.txt", "last.txt"):
            (program.drop / name).write_text(name)
        program.until(lambda: "last.txt" in program.stored())
        assert program("rescan").returncode == program("wait").returncode == 0
        assert program.stored().keys() == {"open.txt", "last.txt"}
        program.kill()


@pytest.mark.parametrize("polling", ["true", "false"])
def test_an_ignore_file_holds_from_when_it_comes_until_it_goes(program: Program, polling: str) -> None:
    text = program.config.read_text()
    program.config.write_text(text.replace('provider = "netease"\n', f'provider = "netease"\npolling = {polling}\n', 1))
    program.drop.mkdir(parents=True, exist_ok=True)
    program.start()
    (program.drop / ".dumbwaiterignore").write_text("*.log\n")
    program.write("a.log", b"a")
    program.write("b.txt", b"b")
    assert program("rescan").returncode == 0
    program.until(lambda: program.stored().keys() == {"b.txt"})
    (program.drop / ".dumbwaiterignore").unlink()
    assert program("rescan").returncode == 0
    program.until(lambda: program.stored().keys() == {"a.log", "b.txt"})


def test_an_ignore_file_that_is_written_anew_slowly_lets_nothing_through(program: Program) -> None:
    program.drop.mkdir(parents=True, exist_ok=True)
    rules = program.drop / ".dumbwaiterignore"
    rules.write_text("secret*\n")
    program.start()
    program.write("secret.txt", b"s")
    rules.unlink()
    with rules.open("w") as file:
        file.write("*.log\n")
        file.flush()
        assert program("rescan").returncode == 0
        program.write("a.txt", b"a")
        program.until(lambda: program.stored().keys() == {"a.txt"})
        file.write("secret*\n")
    program.write("b.log", b"b")
    program.write("c.txt", b"c")
    assert program("rescan").returncode == 0
    program.until(lambda: program.stored().keys() == {"a.txt", "c.txt"})
    assert program("wait").returncode == 0
    assert program.stored().keys() == {"a.txt", "c.txt"}


def test_what_lies_on_another_file_system_below_is_said(program: Program, tmp_path: Path) -> None:
    if os.getuid():
        pytest.skip("only root may mount")
    below = program.drop / "below"
    below.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", below], check=True)
    try:
        (below / "a.txt").write_text("a")
        program.start()
        says = f"{below} is another file system"
        program.until(lambda: says in str(watch(program)["message"]))
        assert says in program("check", below / "a.txt").stdout
        assert says in program("status", below / "a.txt").stderr
        program.kill()
        _is_watched_elsewhere(program, below)
    finally:
        subprocess.run(["umount", "--lazy", below], check=True)


def _is_watched_elsewhere(program: Program, below: Path) -> None:
    """Does what the sentence says."""
    there = program.folder / "there"
    there.mkdir()
    with lying(below, there):
        program.config.write_text(
            program.config.read_text() + f'[watch.there]\npath = "{there}"\nprovider = "netease"\n'
        )
        assert "watch there would upload it" in program("check", there / "a.txt").stdout


def test_t14_a_folder_that_is_meant_to_be_unmounted_is_taken_at_a_word(program: Program, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    program.drop.mkdir(parents=True, exist_ok=True)
    with lying(tmp_path / "disk", program.drop):
        program.start()
        (program.drop / "a").write_bytes(b"a")
        program.until(lambda: program.totals()["done"] == 1)
    program.until(lambda: watch(program)["state"] == "away")
    program.write("b", b"b")
    assert program("rescan", "netease").returncode == program("wait").returncode == 0
    assert watch(program)["state"] == "watching"
    assert program.totals()["done"] == 2
    program.write("c", b"c")
    program.until(lambda: program.totals()["done"] == 3)


def test_t14_what_is_left_to_do_to_the_files_of_an_unmounted_disk_waits_for_it_without_a_daemon_too(
    program: Program, tmp_path: Path
) -> None:
    kept, disk, other = tmp_path / "kept", tmp_path / "disk", tmp_path / "other.txt"
    text = program.config.read_text()
    program.config.write_text(text.replace("[watch.netease]", f'[watch.netease]\nafter = "move:{kept}"'))
    kept.write_bytes(b"")  # not to be had for the moment
    disk.mkdir()
    other.write_bytes(b"other")
    program.drop.mkdir(parents=True, exist_ok=True)
    with lying(disk, program.drop):
        program.start()
        (program.drop / "film.mov").write_bytes(b"film")
        program.until(lambda: any(one["attempts"] for one in program.status()["errands"]))
        assert program.stop() == 0
    kept.unlink()
    (due_at,) = {one["due_at"] for one in program.status()["errands"]}
    program.until(lambda: time.time() > float(due_at))
    assert program("put", "--provider", "recipe", other).returncode == 0
    assert len(program.status()["errands"]) == 1
    with lying(disk, program.drop):
        program.start()
        program.until(lambda: (kept / "film.mov").exists() and not program.status()["errands"])
        assert list(disk.iterdir()) == []
        program.kill()


def test_t14_files_go_to_a_disk_and_never_to_the_folder_below_it(program: Program, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    text = program.config.read_text()
    program.config.write_text(text.replace("[watch.netease]", f'[watch.netease]\nafter = "move:{archive}/sent/films"'))
    archive.mkdir()
    program.drop.mkdir(parents=True, exist_ok=True)
    program.start()

    def goes(name: str) -> None:
        program.until((archive / f"sent/films/{name}").exists)
        program.until(lambda: not program.status()["errands"] and program("wait").returncode == 0)

    with lying(None, archive):
        program.write("one.mov", b"one")
        goes("one.mov")
    assert "1 done, 0 to go, 0 need a person; " in program("status").stdout
    program.write("two.mov", b"two")
    program.until(lambda: any(one["attempts"] for one in program.status()["errands"]))
    (errand,) = program.status()["errands"]
    assert errand["error"].startswith(f"nothing is mounted at {archive}; mount it, or say")
    assert "2 done, 0 to go, 1 to put away, 0 need a person; " in program("status").stdout
    assert list(archive.iterdir()) == []
    assert (program.drop / "two.mov").read_bytes() == b"two"
    with lying(None, archive):
        assert program("retry", "--all").returncode == 0
        goes("two.mov")
    program.write("three.mov", b"three")
    program.until(lambda: any(one["attempts"] for one in program.status()["errands"]))
    assert program("rescan", "netease").returncode == 0  # as the sentence says
    goes("three.mov")
    program.kill()


@pytest.mark.parametrize("what", ["state", "cache"])
def test_t26_own_folders_inside_a_watch_are_refused(program: Program, what: str) -> None:
    (program.drop / "inside").mkdir(parents=True)
    link = program.folder / "link"
    link.symlink_to(program.drop / "inside")
    done = program("run", environment={f"DUMBWAITER_{what.upper()}": str(link)})
    assert done.returncode == 2
    assert f"the {what} folder {link}" in done.stderr


@pytest.mark.parametrize("what", ["state", "cache", "runtime"])
def test_t26_own_folders_that_are_inside_a_watch_by_another_name_are_refused(program: Program, what: str) -> None:
    inner, other = program.drop / "in side", program.folder / "other name"
    inner.mkdir(parents=True)
    other.mkdir()
    with lying(inner, other):
        done = program("run", environment={f"DUMBWAITER_{what.upper()}": str(other / "not yet there")})
    assert done.returncode == 2
    assert f"the {what} folder {other}/not yet there" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's link")
def test_doctor_names_another_users_link_on_the_way_to_where_after_moves_files(
    program: Program, tmp_path: Path
) -> None:
    (tmp_path / "private/done").mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "private")
    os.lchown(link, 65534, 65534)
    text = program.config.read_text()
    program.config.write_text(text.replace("[watch.netease]", f'[watch.netease]\nafter = "move:{link}/done"'))
    found = [one for one in program.facts("doctor")["checks"] if one["check"] == "watch netease"]
    assert [(one["level"], "is another user's" in one["says"]) for one in found] == [("fail", True)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's link")
def test_another_users_link_in_a_watched_folders_place_is_not_followed(program: Program, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir()
    (private / "key").write_bytes(b"secret")
    program.start()
    program.until(lambda: watch(program)["state"] == "watching")
    program.drop.rename(tmp_path / "aside")
    program.drop.symlink_to(private)
    os.lchown(program.drop, 65534, 65534)
    told = "is another user's, and is not followed; its files wait."
    program.until(lambda: str(watch(program)["message"]).endswith(told))
    assert watch(program)["state"] == "away"
    assert program("rescan").returncode == 0
    (private / "later").write_bytes(b"secret")
    program.drop.unlink()
    (tmp_path / "aside").rename(program.drop)
    (program.drop / "film.mov").write_bytes(b"film")
    program.until(lambda: program.stored() == {"film.mov": digest(b"film")})
    program.drop.rename(tmp_path / "aside")
    program.drop.symlink_to(tmp_path / "aside")  # one's own
    (tmp_path / "aside/more").write_bytes(b"more")
    program.until(lambda: program.stored().keys() == {"film.mov", "more"})
