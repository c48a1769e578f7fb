"""Steering the running daemon: pauses, the bandwidth, and whose turn it is."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dumbwaiter.model import MIB
from program import Program, digest


@pytest.fixture
def steered(tmp_path: Path) -> Iterator[Program]:
    """One place for uploads, and a bandwidth that makes the order of things visible."""
    with Program(tmp_path) as made:
        made.config.write_text(made.config.read_text() + '\n[limits]\ntransfers = 2\nbandwidth = "1M"\n')
        yield made


def named(program: Program, name: str = "netease") -> dict[str, Any]:
    return next(one for one in program.status()["providers"] if one["name"] == name)


def test_what_is_paused_rests_over_a_restart_and_goes_on_when_told(program: Program) -> None:
    program.start()
    assert program.facts("pause", "netease") == {
        "paused": [{"name": "netease", "until": None}],
        "bytes_per_second": None,
    }
    path = program.write("a.bin", b"a")
    program.until(lambda: named(program)["pending"] == 1)
    done = program("wait", "--timeout", "500ms")
    assert (done.returncode, done.stdout) == (5, "")
    assert "netease rests until dumbwaiter resume" in done.stderr
    assert program.stop() == 0
    program.start()
    assert named(program)["state"] == "paused"
    assert "netease rests until you resume it" in program("pause", "netease").stderr
    assert program.objects() == []
    assert "nothing rests" in program("resume").stderr
    assert program("wait").returncode == 0
    assert program.stored() == {"a.bin": digest(path.read_bytes())}


def test_a_pause_ends_by_itself(program: Program) -> None:
    program.start()
    program("pause", "--for", "2s")
    program.write("a.bin", b"a")
    assert program("wait").returncode == 0
    assert program.status()["paused"] == []


def test_a_watch_rests_and_its_files_go_when_a_person_orders_them(program: Program) -> None:
    program.start()
    program("pause", "netease")  # the watch has the name of its provider
    program("resume")
    other = program.config.read_text().replace("[watch.netease]", "[watch.films]")
    assert program.stop() == 0
    program.config.write_text(other)
    program.start()
    program("pause", "films")
    rests = program.write("rests.bin", b"rests")
    program.until(lambda: named(program)["pending"] == 1)
    ordered = program.write("ordered.bin", b"ordered")
    assert program("put", ordered).returncode == 0
    assert set(program.stored()) == {"ordered.bin"}
    program("resume", "films")
    assert program("wait").returncode == 0
    assert set(program.stored()) == {ordered.name, rests.name}


def test_a_number_alone_is_seconds(program: Program) -> None:
    program.start()
    assert program("wait", "--timeout", "60").returncode == 0
    before = time.time()
    program("pause", "--for", "3600")
    (pause,) = program.status()["paused"]
    assert before + 3600 <= pause["until"] <= time.time() + 3600


@pytest.mark.parametrize(
    "words", [("pause", "nobody"), ("resume", "nobody"), ("bandwidth", "fast"), ("pause", "--for", "x")]
)
def test_nonsense_is_refused_in_one_sentence(program: Program, words: tuple[str, ...]) -> None:
    program.start()
    done = program(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("dumbwaiter: ")
    assert done.stderr.count("\n") == 1


def test_a_pause_stops_what_is_being_sent_at_its_next_part(steered: Program) -> None:
    content = os.urandom(24 * MIB)
    steered.start()
    steered.write("film.mov", content)
    steered.until(lambda: steered.totals()["bytes_sent"] > 0)
    steered("pause")
    steered.until(lambda: not steered.status()["jobs"][0]["active"])
    sent = steered.status()["jobs"][0]["sent"]
    assert 0 < sent < len(content)
    steered("bandwidth", "off")
    steered("resume")
    assert steered("wait").returncode == 0
    assert steered.stored() == {"film.mov": digest(content)}
    assert steered.totals()["bytes_resent"] <= 4 * MIB  # what might have been on its way


def test_the_bandwidth_is_kept_and_changed_in_the_middle_of_a_file(steered: Program) -> None:
    content = os.urandom(40 * MIB)
    steered.start()
    assert steered.facts("bandwidth")["bytes_per_second"] == MIB
    started = time.monotonic()
    steered.write("film.mov", content)
    steered.until(lambda: steered.totals()["bytes_sent"] >= 8 * MIB)
    assert time.monotonic() - started > 6.0  # a second's worth is saved up
    assert "no limit" in steered("bandwidth", "off").stdout
    assert steered("wait").returncode == 0
    assert time.monotonic() - started < 35.0  # of 40
    assert "1.0 MiB/s" in steered("bandwidth", "auto").stdout


def test_a_small_file_does_not_wait_for_large_ones_nor_an_ordered_one_for_any(steered: Program) -> None:
    for number in range(3):
        with open(steered.folder / f"aside{number}", "wb") as file:
            file.truncate(65 * MIB)
        os.rename(steered.folder / f"aside{number}", steered.drop / f"large{number}.mov")
    steered.start()
    steered.until(lambda: steered.totals()["bytes_sent"] > 0)
    small = steered.write("small.bin", b"small")
    steered.until(lambda: steered.totals()["done"] == 1, 30)
    assert steered.stored() == {"small.bin": digest(small.read_bytes())}


def test_put_without_a_daemon_sends_its_files_and_no_others(steered: Program) -> None:
    steered.start()
    steered.write("waiting.mov", bytes(12 * MIB))
    steered.until(lambda: steered.totals()["bytes_sent"] > 0)
    steered.kill()
    ordered = steered.write("ordered.bin", b"ordered")
    assert steered("put", ordered).returncode == 0
    assert set(steered.stored()) == {"ordered.bin"}
    (job,) = steered.status()["jobs"]
    assert (job["path"], job["sent"] <= 8 * MIB) == ("waiting.mov", True)


def test_a_provider_that_does_not_answer_holds_one_place_only(steered: Program) -> None:
    steered.vendors.faults("nos.put:cut")
    steered.start()
    for number in range(3):
        steered.write(f"{number}.bin", b"lost")
    steered.until(lambda: len([job for job in steered.status()["jobs"] if job["attempts"]]) >= 2)
    steered.vendors.faults("nos.put:stall")
    assert steered("retry", "--all").returncode == 0
    (steered.data / "drop/careyshop/a.txt").write_bytes(b"others go on")
    steered.until(lambda: [entry["path"] for entry in steered.catalogued()] == ["a.txt"], patience=30)


def test_what_rests_is_said_and_not_waited_for(program: Program) -> None:
    program.start()
    program("pause", "netease", "--for", "1h")
    path = program.write("a.bin", b"a")
    done = program("put", path)
    assert (done.returncode, done.stdout) == (5, "")
    assert "netease/a.bin: netease rests until 2" in done.stderr
    assert "! netease rests until 2" in program("status").stdout
    program("resume")
    assert program("wait").returncode == 0
    assert set(program.stored()) == {"a.bin"}


def test_a_refused_account_that_rests_is_told_as_refused(program: Program) -> None:
    program.vendors.faults("vod.init:code-720")
    program.start()
    path = program.write("a.bin", b"a")
    assert program("put", path).returncode == 21
    program("pause", "netease")
    done = program("put", path)
    assert done.returncode == 21
    assert "too little balance" in done.stderr


def test_put_without_a_daemon_tries_again_beside_jobs_that_it_leaves_alone(program: Program) -> None:
    program.vendors.faults("careyshop.upload:no-permission,imagex.commit:uri-failed")
    path = program.data / "drop/careyshop/a.bin"
    path.write_bytes(b"a")
    for words in ((), ("--provider", "jimeng")):
        assert program("put", *words, path).returncode == 5


def test_ctrl_c_ends_a_put_at_once_and_the_upload_goes_on(steered: Program) -> None:
    steered.start()
    path = steered.write("a.bin", bytes(3 * MIB))
    with steered.begin("put", path) as put:
        steered.until(lambda: any(job["active"] for job in steered.status()["jobs"]))
        opened = Path(f"/proc/{put.pid}/fd")

        def talks() -> bool:
            with suppress(FileNotFoundError):  # a descriptor was closed meanwhile
                return any(one.readlink().name.startswith("socket:") for one in opened.iterdir())
            return False

        steered.until(talks)
        put.send_signal(signal.SIGINT)
        _, said = put.communicate(timeout=20)
    assert put.returncode == 1
    assert said.strip().startswith("dumbwaiter: not waited for: the daemon goes on with it")
    assert steered("wait").returncode == 0


def test_ctrl_c_ends_a_put_without_a_daemon_and_the_next_one_goes_on(steered: Program) -> None:
    path = steered.write("a.bin", bytes(3 * MIB))
    with steered.begin("put", path) as put:
        steered.until(lambda: steered.vendors.log("put"))
        put.send_signal(signal.SIGINT)
        _, said = put.communicate(timeout=20)
    assert put.returncode == 1
    assert said.strip().startswith(
        "dumbwaiter: stopped: what was left is in the journal, and the next `dumbwaiter run`"
    )
    steered.start()
    assert steered("wait").returncode == 0
    assert steered.stored().keys() == {"a.bin"}
