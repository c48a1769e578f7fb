"""T23: what cannot be heard is scanned, and it is said why and what would help. The limits are those of a user namespace."""

import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dumbwaiter.model import MIB
from program import Program, digest

DAEMON = (sys.executable, "-m", "dumbwaiter")
FOLDERS, LIMIT = 60, 40


def limited(**limits: int) -> tuple[str, ...]:
    """Starts the daemon in a user namespace with limits of its own."""
    inside = "".join(f"echo {number} > /proc/sys/user/max_inotify_{what};" for what, number in limits.items())
    prefix = ("unshare", "--user", "--map-root-user", "sh", "-ec", f'{inside} exec "$@"', "sh")
    if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no user namespace may be made here")
    return *prefix, *DAEMON


def watch(program: Program) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in program.status()["watches"] if one["name"] == "netease")
    return found


def drop(program: Program, *names: str) -> dict[str, str]:
    """Drops a file under each name and returns what has to be at the provider."""
    return {name: digest(program.write(name, name.encode()).read_bytes()) for name in names}


def quiet(program: Program) -> None:
    """Waits for the end of the first scan, which finds what was there before."""
    assert program("wait").returncode == 0


def test_t23_with_fewer_watches_than_folders_all_goes_up_and_the_number_named_is_enough(program: Program) -> None:
    for number in range(FOLDERS):
        (program.drop / f"{number}").mkdir(parents=True)
    program.start(*limited(watches=LIMIT))
    quiet(program)
    said = re.search(
        rf"(\d+) folders are not heard, only scanned: (\d+) watches are needed, .* {LIMIT}; "
        r"raise user\.max_inotify_watches\.",
        watch(program)["message"],
    )
    assert said, watch(program)
    missing, needed = map(int, said.groups())
    assert missing > FOLDERS - LIMIT
    assert needed == 1 + len(program.status()["watches"]) + FOLDERS  # the first is the watcher's own
    files = drop(program, *(f"{number}/file" for number in range(FOLDERS)), "new/folder/file")
    program.until(lambda: program.stored() == files)
    assert program.stop() == 0
    program.start(*limited(watches=needed + 2))  # two folders have come
    quiet(program)
    assert (watch(program)["state"], watch(program)["message"]) == ("watching", "")
    assert program.totals()["done"] == len(files)


@pytest.mark.torture
def test_t23_a_limit_that_is_raised_is_noticed(program: Program) -> None:
    for number in range(FOLDERS):
        (program.drop / f"{number}").mkdir(parents=True)
    program.start(*limited(watches=LIMIT))
    quiet(program)
    assert "not heard" in watch(program)["message"]
    assert program.daemon is not None
    raised = "echo 1000 > /proc/sys/user/max_inotify_watches"
    subprocess.run(
        ["nsenter", f"--target={program.daemon.pid}", "--user", "--preserve-credentials", "sh", "-c", raised],
        check=True,
    )
    program.until(lambda: watch(program)["message"] == "", patience=90)
    files = drop(program, f"{FOLDERS - 1}/file")
    program.until(lambda: program.stored() == files, patience=5)  # no scan comes so soon


def test_t23_without_an_inotify_instance_all_goes_up_by_scanning(program: Program) -> None:
    files = drop(program, "before")
    program.start(*limited(instances=0))
    quiet(program)
    assert watch(program)["state"] == "polling"
    assert watch(program)["message"] == (
        "Scans only: the kernel gives no inotify instance (too many open files; user.max_inotify_instances is 0)."
    )
    files |= drop(program, "later", "new/folder/file")
    program.until(lambda: program.stored() == files)


def test_t23_what_could_not_be_read_goes_up_once_it_can(program: Program) -> None:
    folder, file = program.drop / "closed", program.drop / "file"
    files = drop(program, "closed/a", "closed/deep/b", "file", "open")
    folder.chmod(0)
    file.chmod(0)
    # Root reads everything, but for one that has none of root's rights.
    bare = () if os.getuid() else ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    program.start(*bare, *DAEMON)
    program.until(lambda: program.stored() == {"open": files["open"]})
    program.until(lambda: watch(program)["message"].endswith("/closed cannot be read: give this user the right to."))
    told = [("file", "the file cannot be read: Permission denied")]
    program.until(lambda: [(job["path"], job["error"]) for job in program.status()["jobs"]] == told)
    assert {one["error"] for one in program.status()["providers"]} == {None}
    folder.chmod(0o700)
    file.chmod(0o600)
    program.until(lambda: program.stored() == files)
    assert program("wait").returncode == 0
    assert program.totals()["rejected"] == 0


FAULTY = """
import errno, os
def failing(read):
    def one(fd, what, offset, *flags):
        if offset >= {at} and os.readlink(f"/proc/self/fd/{{fd}}").endswith("/film.mov"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(fd, what, offset, *flags)
    return one
os.pread, os.preadv = failing(os.pread), failing(os.preadv)
"""


@pytest.mark.parametrize(("size", "at"), [(100, 0), (9 * MIB, 5 * MIB)])
def test_t23_a_file_on_a_disk_with_a_bad_sector_is_told_of_and_not_its_provider(
    program: Program, tmp_path: Path, size: int, at: int
) -> None:
    """The disk is played by the process itself: what reads the file meets what the kernel would say."""
    (tmp_path / "faulty").mkdir()
    (tmp_path / "faulty/sitecustomize.py").write_text(FAULTY.format(at=at))
    paths = [f"{tmp_path}/faulty", *filter(None, [os.environ.get("PYTHONPATH")])]
    program.environment["PYTHONPATH"] = os.pathsep.join(paths)
    program.start()
    program.write("film.mov", bytes(size))

    def told() -> bool:
        facts = program.status()
        return [job["error"] for job in facts["jobs"]] == ["the file cannot be read: Input/output error"]

    program.until(told)
    assert [one["error"] for one in program.status()["providers"] if one["error"]] == []
    assert "Traceback" not in program.log.read_text()


def test_t23_where_polling_is_configured_nothing_is_heard_and_all_goes_up(program: Program) -> None:
    program.config.write_text(program.config.read_text().replace("settle =", "polling = true\nsettle ="))
    files = drop(program, "before")
    program.start()
    quiet(program)
    assert (watch(program)["state"], watch(program)["message"]) == ("polling", "Scans only, as configured.")
    assert program.daemon is not None
    for path in Path(f"/proc/{program.daemon.pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            assert "inotify" not in path.read_text()
    files |= drop(program, "later", "new/folder/file")
    program.until(lambda: program.stored() == files)
