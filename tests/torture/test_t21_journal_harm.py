"""T21: a journal that is harmed is said, never quietly begun anew; the remedy that is named works, and no file is lost."""

import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import journals
from dumbwaiter.store.backup import back_up, backup_of
from dumbwaiter.store.database import journal_url
from dumbwaiter.store.tables import SCHEMA
from ledger import Ledger
from program import Program


def journal(program: Program) -> Path:
    return program.state / "journal.db"


def remove_logs(path: Path) -> None:
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def emptied(path: Path) -> None:
    remove_logs(path)
    path.write_bytes(b"")


def removed(path: Path) -> None:
    remove_logs(path)
    path.unlink()


def zeroed(path: Path) -> None:
    remove_logs(path)
    path.write_bytes(bytes(path.stat().st_size))


def garbled(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(os.urandom(3 * 4096))


def without_tables(path: Path) -> None:
    """What is left of a young journal whose write-ahead log was not copied with it."""
    removed(path)
    with closing(sqlite3.connect(path)) as empty:
        empty.execute("PRAGMA journal_mode=WAL")


@pytest.fixture
def used(program: Program) -> Ledger:
    """An installation that has worked, was copied, has worked on, and was killed."""
    book = Ledger(program, "journal harm")
    program.start()
    for provider in ("netease", "recipe", "careyshop-sts", "jiandaoyun"):
        book.new(provider)
    assert program("wait").returncode == 0
    assert back_up(journal_url(str(program.state)), time.time())
    assert not back_up(journal_url(str(program.state)), time.time())  # one a day
    copy, ahead = backup_of(str(program.state / "journal.db")), time.time() + 1e7
    os.utime(copy, (ahead, ahead))
    assert back_up(journal_url(str(program.state)), time.time())  # by whatever clock the last one was made
    book.new("netease")
    assert program("wait").returncode == 0
    program.kill()
    return book


@pytest.mark.parametrize(
    "harm",
    [emptied, garbled, *(pytest.param(one, marks=pytest.mark.torture) for one in (removed, zeroed, without_tables))],
)
def test_t21_a_harmed_journal_is_said_and_its_copy_brings_all_back(
    program: Program, used: Ledger, harm: Callable[[Path], None]
) -> None:
    harm(journal(program))
    before = journal(program).read_bytes() if journal(program).exists() else b""
    done = program("run", patience=30)
    assert done.returncode == 2, done.stderr
    assert "dumbwaiter recover" in done.stderr
    assert "Traceback" not in done.stderr
    assert (journal(program).read_bytes() if journal(program).exists() else b"")[:4096] == before[:4096]
    done = program("recover")
    assert done.returncode == 0, done.stderr
    assert "last copy" in done.stderr
    used.new("recipe")
    program.start()
    assert program("wait").returncode == 0
    assert program.stop() == 0
    assert used.complaints() == []


@pytest.mark.parametrize("harm", [emptied, garbled, without_tables])
def test_t21_a_copy_that_is_harmed_too_takes_nothings_place(
    program: Program, used: Ledger, harm: Callable[[Path], None]
) -> None:
    zeroed(journal(program))
    harm(Path(backup_of(str(journal(program)))))
    before = sorted(os.listdir(program.state))
    done = program("recover")
    assert done.returncode == 2
    assert "is damaged as well; dumbwaiter recover --anew" in done.stderr
    assert sorted(os.listdir(program.state)) == before
    assert program("recover", "--anew").returncode == 0


def test_t21_without_a_copy_a_person_says_that_it_begins_anew(program: Program, used: Ledger) -> None:
    Path(backup_of(str(journal(program)))).unlink()
    emptied(journal(program))
    done = program("recover")
    assert done.returncode == 2
    assert "--anew" in done.stderr
    assert program("recover", "--anew").returncode == 0
    program.start()
    assert program("wait").returncode == 0
    assert program.stop() == 0
    assert used.complaints() == []


def test_t21_a_lost_write_ahead_log_costs_no_file(program: Program, used: Ledger) -> None:
    """The main file is what it was at some earlier moment; the folders say the rest."""
    remove_logs(journal(program))
    done = program("status")
    if done.returncode != 0 or program("--json", "status").stdout.find('"done": 0') >= 0:
        assert program("recover").returncode == 0
    program.start()
    assert program("wait").returncode == 0
    assert program.stop() == 0
    assert used.complaints() == []


def test_t21_the_copy_is_private_and_holds_no_session_ticket(program: Program) -> None:
    program.vendors.faults("nos.put:500")
    program.start()
    program.write("a.mov", os.urandom(1000))
    held = 'SELECT count(*) FROM jobs WHERE "grant" IS NOT NULL'

    def tickets(path: Path) -> int:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
            count: int = database.execute(held).fetchone()[0]
        return count

    program.until(lambda: tickets(journal(program)) == 1)
    assert back_up(journal_url(str(program.state)), time.time())
    copy = Path(backup_of(str(journal(program))))
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert b"UPLOAD " not in copy.read_bytes()
    assert tickets(copy) == 0
    assert [path.name for path in program.state.iterdir() if ".new" in path.name] == []


def test_t21_a_sound_journal_is_not_exchanged_for_its_older_copy(program: Program, used: Ledger) -> None:
    done = program("recover")
    assert done.returncode == 2
    assert "the journal is sound" in done.stderr
    assert program("recover", "--anew").returncode == 2
    program.start()
    assert program.stop() == 0
    assert used.complaints() == []


def test_t21_recover_waits_for_the_daemon_to_stop(program: Program) -> None:
    program.start()
    done = program("recover")
    assert done.returncode == 1
    assert "stop it first" in done.stderr


def test_t21_a_journal_of_a_newer_program_is_left_alone(program: Program, used: Ledger) -> None:
    with closing(sqlite3.connect(journal(program))) as newer:
        newer.execute("UPDATE alembic_version SET version_num = '9999'")
        newer.commit()
    done = program("run")
    assert done.returncode == 2
    assert f"schema 9999, this dumbwaiter knows {SCHEMA}" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount")
def test_t21_a_journal_that_cannot_be_written_is_said(program: Program, used: Ledger) -> None:
    subprocess.run(["mount", "--bind", program.state, program.state], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", program.state], check=True)
        done = program("run", patience=30)
    finally:
        subprocess.run(["umount", "-l", program.state], check=True)
    assert done.returncode in {1, 2, 5}
    assert done.stderr.count("\n") == 1
    assert "ead-only" in done.stderr or "readonly" in done.stderr


# A program that is killed inside the transaction that makes or changes the tables.
MORTAL = """
import os, signal
from dumbwaiter.store import upgrade
def mortal(*arguments, real=upgrade.{step}):
    real(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
upgrade.{step} = mortal
from dumbwaiter.cli import main
main()
"""


@pytest.mark.parametrize("step", ["_create", "_steps"])
def test_t21_a_kill_while_the_tables_are_made_or_changed_changes_nothing(program: Program, step: str) -> None:
    """At the very first start, when there was no journal, and none may be missed afterwards; and at an update."""
    if step == "_steps":
        program.state.mkdir()
        journals.migrated(journal_url(str(program.state)), "0001").dispose()
    killed = subprocess.run(
        [sys.executable, "-c", MORTAL.format(step=step), "run"],
        env=program.environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert killed.returncode == -9
    program.write("a.bin", b"a")
    program.start()
    assert program("wait").returncode == 0
    assert program.totals()["done"] == 1
