"""T25: many programs at one journal, and a reader that was stopped in the middle."""

import signal
import subprocess
import sys
import threading

import pytest

from ledger import MIB
from program import Program

READER = """
import sqlite3, sys, time
journal = sqlite3.connect("file:" + sys.argv[1] + "?mode=ro", uri=True)
rows = journal.execute("SELECT * FROM jobs")  # half read
rows.fetchone()
print("reading", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("puts", "files"), [(6, 60), pytest.param(20, 2000, marks=[pytest.mark.torture, pytest.mark.timeout(900)])]
)
def test_t25_puts_listings_and_a_stopped_reader_disturb_nobody(program: Program, puts: int, files: int) -> None:
    program.write("first.bin", b"first")
    program.start()
    assert program("wait").returncode == 0
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, str(program.state / "journal.db")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "reading\n"
        reader.send_signal(signal.SIGSTOP)
        outside = program.folder / "outside"
        outside.mkdir()
        ends: list[tuple[int, str]] = []

        def put(number: int) -> None:
            path = outside / f"{number}.bin"
            path.write_bytes(b"put %d" % number)
            done = program("put", "--provider", "recipe", path, patience=300)
            ends.append((done.returncode, done.stderr))

        threads = [threading.Thread(target=put, args=(number,)) for number in range(puts)]
        for thread in threads:
            thread.start()
        for number in range(files):
            program.write(f"{number % 7}/{number}.bin", b"file %d" % number)
        for _ in range(3):
            assert program("ls").returncode == 0
        second = program("run")
        assert second.returncode == 1
        assert "already running" in second.stderr
        for thread in threads:
            thread.join()
        assert {code for code, _ in ends} == {0}, ends
        assert program("wait", "--timeout", "10m", patience=660).returncode == 0
        assert program.totals()["done"] == 1 + puts + files
        assert (program.state / "journal.db-wal").stat().st_size < 64 * MIB
    finally:
        reader.kill()
        reader.wait()
        if reader.stdout is not None:
            reader.stdout.close()
    assert program.stop() == 0
    assert "locked" not in program.log.read_text()
