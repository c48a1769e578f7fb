"""Nothing is lost and nothing is sent twice that need not be, whatever ends."""

import os
import random
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from dumbwaiter.app import REFRESH
from dumbwaiter.installation import CUT_OFF, MOVED
from dumbwaiter.model import MIB
from program import Program, digest

# A daemon that is killed, as by kill -9, right after its Nth commit, or right before it.
MORTAL = """
import os, signal, sys
from dumbwaiter.store.writer import Writer
commit, when, left = Writer._transaction, os.environ["KILL_WHEN"], int(os.environ["KILL_AT"])
def mortal(self, group):
    global left
    left -= 1
    if left == 0 and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = commit(self, group)
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
Writer._transaction = mortal
from dumbwaiter.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", pytest.param("after", marks=pytest.mark.torture)])
def test_a_kill_at_any_commit_leaves_one_done_job_and_the_right_bytes(program: Program, when: str) -> None:
    content = random.Random(1).randbytes(9 * MIB)
    program.write("film.mov", content)
    commits = 0
    finished = False
    while not finished:
        commits += 1
        environment = {"KILL_WHEN": when, "KILL_AT": str(commits)}
        # `put` walks through the same commits as the daemon, and ends by itself.
        done = _mortal(program, environment)
        finished = done == 0
        assert commits < 60
    assert program.totals()["done"] == 1
    assert program.stored() == {"film.mov": digest(content)}
    assert commits > 6


def _mortal(program: Program, environment: dict[str, str]) -> int:
    import subprocess

    return subprocess.run(
        [sys.executable, "-c", MORTAL, "put", str(program.drop / "film.mov")],
        env=program.environment | environment,
        capture_output=True,
        timeout=60,
        check=False,
    ).returncode


def test_a_kill_inside_a_large_file_costs_one_chunk_at_most(program: Program) -> None:
    content = random.Random(2).randbytes(60 * MIB)
    program.vendors.faults("latency=30ms")
    program.start()
    program.write("film.mov", content)
    kills = 0
    for mark in (10, 25, 40):
        program.until(lambda mark=mark: _sent(program) > mark * MIB)
        program.kill()
        kills += 1
        program.start()
    assert program("wait").returncode == 0
    assert program.stored() == {"film.mov": digest(content)}
    received = sum(one["received"] for one in program.vendors.log("put"))
    assert received - len(content) <= kills * 4 * MIB
    assert len(program.objects()) == 1


def test_what_waits_for_a_provider_that_its_watch_no_longer_has_waits_no_longer(program: Program) -> None:
    with_vod = program.config.read_text()
    with_other = with_vod.replace("[provider.netease]", "[provider.vod]").replace(
        'provider = "netease"', 'provider = "vod"'
    )
    program.vendors.faults("nos.put:503%100")
    program.start()
    path = program.write("film.mov", b"film")
    program.until(lambda: any(job["attempts"] for job in program.status()["jobs"]))
    assert program.stop() == 0
    program.vendors.faults("")
    for config, done in ((with_other, 1), (with_vod, 2)):
        program.config.write_text(config)
        program.start()
        assert program("wait").returncode == 0
        assert program.totals()["done"] == done
        assert ("its watch is not configured any more, or for another provider" in program("status", path).stdout) == (
            done == 1
        )
        assert program.stop() == 0
    assert program.stored() == {"film.mov": digest(b"film")}


def test_a_place_that_another_version_of_the_program_wrote_is_no_reason_to_stop(program: Program) -> None:
    content = random.Random(3).randbytes(20 * MIB)
    program.vendors.faults("latency=30ms")
    program.start()
    program.write("film.mov", content)
    program.until(lambda: _sent(program) > 8 * MIB)
    program.kill()
    with closing(sqlite3.connect(program.state / "journal.db")) as journal, journal:
        journal.execute("""UPDATE jobs SET checkpoint = '{"offset": "of another kind"}'""")
    program.start()
    assert program("wait").returncode == 0
    assert program.stored() == {"film.mov": digest(content)}


def _sent(program: Program) -> int:
    return sum(one["received"] for one in program.vendors.log("put"))


def test_a_stop_in_the_middle_keeps_what_was_acknowledged(program: Program) -> None:
    content = random.Random(3).randbytes(40 * MIB)
    program.vendors.faults("latency=50ms")
    program.start()
    program.write("film.mov", content)
    program.until(lambda: _sent(program) > 8 * MIB)
    assert program.stop() == 0
    program.vendors.faults("")
    program.start()
    assert program("wait").returncode == 0
    assert program.stored() == {"film.mov": digest(content)}
    assert _sent(program) - len(content) <= 4 * MIB


def test_an_expired_token_is_replaced_without_a_person(program: Program) -> None:
    content = random.Random(4).randbytes(30 * MIB)
    program.vendors.options(token_life=250)
    program.vendors.faults("latency=50ms")
    program.start()
    program.write("film.mov", content)
    program.until(lambda: _sent(program) > 8 * MIB)
    program.vendors.advance(290)
    assert program("wait").returncode == 0
    assert program.stored() == {"film.mov": digest(content)}
    assert len(program.vendors.log("init")) == 2


FAULTS = (
    "seed=7,nos.put:cut%5,nos.put:cut-within%5,nos.put:cut-after%5,nos.put:cut-reply%5,nos.put:500%5,nos.put:403%2,"
    "nos.put:404%2,nos.put:520%4,nos.put:short%5,nos.put:context%5,nos.put:empty%3,nos.put:html%3,nos.query:404%5,"
    "nos.query:500%5,vod.init:500%3,vod.init:code-700%3,vod.query:cut%3,lbs.get:colon%10,lbs.get:500%10"
)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_faults_of_every_kind_lose_nothing_and_double_nothing(program: Program) -> None:
    program.vendors.faults(FAULTS)
    numbers = random.Random(5)
    program.start()
    wanted = {}
    for number in range(100):
        length = numbers.choice(
            [0, 1, 100, 5_000, 200_000, 4 * MIB, 4 * MIB + 1, 9 * MIB] if number % 10 == 0 else [0, 1, 100, 5_000]
        )
        content = numbers.randbytes(length)
        program.write(f"folder {number % 7}/file {number}.bin", content)
        wanted[f"folder {number % 7}/file {number}.bin"] = digest(content)
    assert program("wait", "--timeout", "200s", patience=220).returncode == 0
    assert program.stored() == wanted
    totals = program.totals()
    assert totals["done"] == 100
    assert len(program.facts("history", "-n", "1000")) == 100
    assert program.stop() == 0
    _no_secret_is_left(program)


def _no_secret_is_left(program: Program) -> None:
    secret = program.vendors.sandbox.accounts["netease"]["app_secret"].encode()
    for path in program.state.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert secret not in content, path
            assert b"UPLOAD " not in content, path
    log = program.log.read_bytes()
    assert secret not in log
    assert b"UPLOAD " not in log.replace(b"UPLOAD ***", b"")


def test_a_file_that_changes_while_it_is_sent_goes_up_in_its_new_version(program: Program) -> None:
    numbers = random.Random(6)
    old, new = numbers.randbytes(40 * MIB), numbers.randbytes(20 * MIB)
    program.vendors.faults("latency=50ms")
    program.start()
    path = program.write("film.mov", old)
    program.until(lambda: _sent(program) > 8 * MIB)
    path.write_bytes(new)
    assert program("wait").returncode == 0
    assert program.stored() == {"film.mov": digest(new)}
    assert set(program.objects()) <= {digest(old), digest(new)}


def test_a_file_that_vanishes_is_no_failure(program: Program) -> None:
    program.vendors.faults("vod.init:500@1x2")
    program.start()
    path = program.write("film.mov", b"x" * 1000)
    program.until(lambda: program.vendors.log("init"))
    path.unlink()
    assert program("wait").returncode == 0
    assert program.objects() == []
    story = program("status", str(path)).stdout
    assert "gone before it was sent" in story


def test_touching_a_file_uploads_nothing(program: Program) -> None:
    program.start()
    path = program.write("film.mov", b"x" * 1000)
    assert program("wait").returncode == 0
    for touch in (lambda: os.chmod(path, 0o600), lambda: os.utime(path), lambda: os.utime(path, (1, 1))):
        touch()
        assert program("rescan").returncode == 0
        assert program("wait").returncode == 0
        assert len(program.vendors.log("init")) == 1
    with closing(sqlite3.connect(program.state / "journal.db")) as journal:
        assert journal.execute("SELECT mtime_ns FROM entries").fetchall() == [(10**9,)]
    path.write_bytes(b"y" * 1000)
    program.until(lambda: program("wait").returncode == 0 and len(program.objects()) == 2)
    assert program.stored() == {"film.mov": digest(b"y" * 1000)}


def test_files_that_came_while_the_daemon_was_down_are_found(program: Program, tmp_path: Path) -> None:
    program.write("before.bin", b"1")
    program.start()
    assert program("wait").returncode == 0
    assert program.stop() == 0
    program.write("between.bin", b"2")
    program.start()
    program.until(lambda: len(program.objects()) == 2)
    assert program("wait").returncode == 0
    assert program.stored() == {"before.bin": digest(b"1"), "between.bin": digest(b"2")}


@pytest.mark.parametrize("gone", ["journal.db", "lock", "."])
def test_a_daemon_whose_state_was_moved_away_deletes_nothing_and_ends(program: Program, gone: str) -> None:
    """What it notes goes to a file without a name, and nobody could say what the provider called the file."""
    program.config.write_text(
        program.config.read_text().replace("[watch.netease]", "[watch.netease]\nafter = 'delete'")
    )
    program.start()
    program.write("first.bin", b"first")
    program.until(lambda: not (program.drop / "first.bin").exists())
    (program.state / gone).resolve().rename(program.folder / "elsewhere")
    kept = program.write("kept.bin", b"kept")
    assert program.daemon is not None
    assert program.daemon.wait(2 * REFRESH) == 2
    assert MOVED in program.log.read_text()
    assert kept.exists()
    assert program.state.exists() == (gone != ".")  # nothing is in the way of the one that is put back


def test_a_daemon_whose_journals_log_was_removed_deletes_nothing_and_ends_with_all_in_the_journal(
    program: Program,
) -> None:
    """What it commits to a log without a name would be lost when it is killed."""
    program.config.write_text(
        program.config.read_text().replace("[watch.netease]", "[watch.netease]\nafter = 'delete'")
    )
    program.start()
    program.write("first.bin", b"first")
    program.until(lambda: not (program.drop / "first.bin").exists())
    (program.state / "journal.db-wal").unlink()
    kept = program.write("kept.bin", b"kept")
    assert program.daemon is not None
    assert program.daemon.wait(2 * REFRESH) == 5
    assert CUT_OFF in program.log.read_text()
    assert kept.exists()
    assert sorted(row["path"] for row in program.facts("ls")) == ["first.bin", "kept.bin"]
    program.start()
    program.until(lambda: not kept.exists())
    assert len(program.objects()) == 2
