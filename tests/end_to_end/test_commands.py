"""The commands as a person or a script uses them."""

import base64
import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from dumbwaiter.cli.commands import COMMANDS
from dumbwaiter.cli.session import Session
from dumbwaiter.client import Connection
from program import Program, digest

AWKWARD = os.fsdecode(b"not utf-8 \xff \x1b[31m\n.bin")


def test_put_prints_one_link_a_line(program: Program) -> None:
    paths = [program.write(f"{number}.txt", bytes([number])) for number in range(3)]
    done = program("put", *paths)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    links = done.stdout.splitlines()
    assert len(links) == 3
    assert {digest(program.vendors.http.get(link).content) for link in links} == {digest(bytes([n])) for n in range(3)}


def test_put_goes_through_the_daemon_when_one_runs(program: Program) -> None:
    program.start()
    outside = program.folder / "outside.txt"
    outside.write_bytes(b"outside")
    done = program("put", "--provider", "netease", outside)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    (entry,) = program.facts("ls", "put")
    assert entry["watch"] == "put"
    assert "/" + entry["path"] == str(outside)


@pytest.mark.parametrize("daemon", [False, True])
def test_put_prints_a_line_for_each_argument_in_their_order(program: Program, daemon: bool) -> None:
    for name in ("a", "b"):
        (program.folder / f"{name}.txt").write_text(name)
    if daemon:
        program.start()
    first, second = (program("put", "--provider", "netease", program.folder / f"{name}.txt").stdout for name in "ab")
    done = program("put", "--provider", "netease", "b.txt", "a.txt", "./b.txt", folder=program.folder)
    assert (done.returncode, done.stdout) == (0, f"{second}{first}{second}")


def test_put_of_the_same_file_again_sends_nothing(program: Program) -> None:
    path = program.write("a.txt", b"a")
    first, second = program("put", path), program("put", path)
    assert first.stdout == second.stdout
    assert len(program.vendors.log("init")) == 1


@pytest.mark.parametrize("daemon", [False, True])
def test_put_of_a_file_whose_end_the_journal_does_not_take_ends_and_says_so(program: Program, daemon: bool) -> None:
    assert program("put", program.write("first.txt", b"first")).returncode == 0
    with contextlib.closing(sqlite3.connect(program.state / "journal.db")) as journal:
        journal.execute(
            "CREATE TRIGGER refused BEFORE UPDATE ON jobs WHEN NEW.state = 'stored' "
            "BEGIN SELECT RAISE(ABORT, 'the page is damaged'); END"
        )
    if daemon:
        program.start()
    done = program("put", program.write("second.txt", b"second"))
    assert (done.returncode, done.stdout) == (5, "")
    assert "second.txt: the journal cannot be written: the page is damaged" in done.stderr


def test_many_puts_at_once_take_turns(program: Program) -> None:
    paths = [program.write(f"{number}.txt", bytes([number])) for number in range(6)]
    running = [program.begin("put", path) for path in paths]
    for one in running:
        out, err = one.communicate(timeout=60)
        assert one.returncode == 0, err
        assert out.count("\n") == 1
        assert "locked" not in err
    assert program.totals()["done"] == 6


def test_a_long_list_is_written_as_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DUMBWAITER_STATE", str(tmp_path))
    session = Session(None, None, None, None, as_json=True, verbose=False, quiet=False)
    before = []

    def values() -> Iterator[dict[str, int]]:
        yield {"one": 1}
        before.append(capsys.readouterr().out)
        yield {"two": 2}

    session.list_facts(values())
    assert before == ['[{"one": 1}']
    assert json.loads(before[0] + capsys.readouterr().out) == [{"one": 1}, {"two": 2}]
    session.list_facts([])
    assert json.loads(capsys.readouterr().out) == []


def test_status_tells_what_is_promised(program: Program) -> None:
    program.start()
    program.write("a.txt", b"abc")
    assert program("wait").returncode == 0
    facts = program.facts("status")
    assert facts["running"] is True
    (watch,) = [one for one in facts["watches"] if one["name"] == "netease"]
    assert watch | {"name": "netease", "state": "watching", "files": 1, "pending": 0} == watch
    (provider,) = [one for one in facts["providers"] if one["name"] == "netease"]
    assert provider | {"name": "netease", "state": "ready", "error": None} == provider
    assert facts["totals"] | {"pending": 0, "stored": 0, "done": 1, "rejected": 0, "bytes_sent": 3} == facts["totals"]
    assert facts["totals"]["grants_requested"] == 1
    assert facts["jobs"] == []
    assert program.stop() == 0
    alone = program.facts("status")
    assert (alone["running"], alone["pid"], alone["trouble"]) == (False, None, None)
    assert alone.keys() == facts.keys()
    for rows in ("watches", "providers"):
        assert [one.keys() for one in alone[rows]] == [one.keys() for one in facts[rows]]


@pytest.mark.parametrize("words", [["status"], ["status", "--json"], ["--json", "status"]])
def test_status_of_a_running_daemon_loads_no_library(program: Program, words: list[str]) -> None:
    program.start()
    done = program(*words, environment={"PYTHONPROFILEIMPORTTIME": "1"})
    assert done.returncode == 0
    assert '"running": true' in done.stdout or done.stdout.startswith("running\n")
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "dumbwaiter" in loaded
    assert not loaded & {"asyncio", "click", "h11", "http", "msgspec", "sqlalchemy"}
    assert program.stop() == 0
    assert "not running" in program("status").stdout


def test_status_of_a_file_tells_its_story(program: Program) -> None:
    path = program.write("a.txt", b"abc")
    assert program("put", path).returncode == 0
    story = program("status", path).stdout
    assert "done" in story
    assert "3 of 3 bytes" in story
    (facts,) = program.facts("status", path)
    assert facts["state"] == "done"
    unknown = program("status", program.folder / "never")
    assert unknown.returncode == 1
    assert "never seen" in unknown.stderr


def test_status_says_when_a_provider_that_asked_to_wait_is_tried_again(program: Program) -> None:
    program.vendors.faults("vod.init:429")
    program.start()
    program.write("a.txt", b"a")
    program.until(lambda: program.vendors.log("init"))
    path = program.write("b.txt", b"b")
    program.until(lambda: "netease is tried again" in program("status", path).stdout)
    program.until(lambda: "! netease ready, next try 2" in program("status").stdout)


def test_the_story_of_a_file_is_told_when_its_watch_is_no_longer_configured(program: Program) -> None:
    done, refused = program.write("a/b.txt", b"abc"), program.write("c.txt", b"abcd")
    assert program("put", done).returncode == 0
    program.vendors.faults("nos.put:400")
    assert program("put", refused).returncode == 20
    text = program.config.read_text()
    program.config.write_text(
        text.replace("[watch.netease]", "[watch.other]").replace(f'"{program.drop}"', '"~/other"')
    )
    for words in (done, refused, "netease/a/b.txt", "netease/c.txt"):
        told = program("status", words)
        assert told.returncode == 0, told.stderr
        assert "watch: netease is no longer configured" in told.stdout
    assert [one["state"] for one in program.facts("status", refused)] == ["rejected"]
    twin = program.folder / "c.txt"
    twin.write_bytes(b"abcd")
    for path in (twin, program.drop / "gone.txt", "netease/gone.txt"):
        assert "was never seen" in program("status", path).stderr


def test_status_watch_is_a_stream_of_lines(program: Program) -> None:
    program.start()
    watching = program.begin("status", "--watch")
    try:
        assert watching.stdout is not None
        assert json.loads(watching.stdout.readline())["totals"]["done"] == 0
        program.write("a.txt", b"abc")
        while json.loads(watching.stdout.readline())["totals"]["done"] == 0:
            pass
    finally:
        watching.terminate()
        watching.communicate(timeout=30)


def test_whoever_follows_is_let_go_when_the_daemon_stops(program: Program) -> None:
    program.start()
    program("bandwidth", "64K")
    outside = program.folder / "long.bin"  # no watch finds it: that it is under way says that `put` follows
    outside.write_bytes(bytes(8 << 20))
    following = [program.begin("status", "--watch"), program.begin("put", "--provider", "netease", outside)]
    try:
        assert following[0].stdout is not None
        while not any(job["active"] for job in json.loads(following[0].stdout.readline())["jobs"]):
            pass
        assert program.stop() == 0
        said = [one.communicate(timeout=30)[1] for one in following]
        assert [one.returncode for one in following] == [23, 5], said
        left = "it is in the queue, and sent when the daemon runs again"
        assert said == ["dumbwaiter: the daemon has ended\n", f"dumbwaiter: {outside}: {left}\n"]
    finally:
        for one in following:
            one.kill()
            one.communicate()
    assert "Traceback" not in program.log.read_text()
    assert "graceful" not in program.log.read_text()


def _on_a_terminal(program: Program, *words: str | os.PathLike[str], until: bytes) -> str:
    """Runs a command on a terminal of 60 columns until it said so, and returns what it drew, without colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 60, 0, 0))
    running = subprocess.Popen(
        [sys.executable, "-m", "dumbwaiter", *words],
        env=program.environment | {"TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    try:
        while not re.search(until, said):
            said += os.read(ours, 65536)
    finally:
        running.send_signal(signal.SIGINT)
        os.set_blocking(ours, False)
        while running.poll() is None:
            with contextlib.suppress(BlockingIOError, OSError):
                said += os.read(ours, 65536)
        os.close(ours)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said.decode()).replace("\r", "\n")


LONG = "a film with a name that is longer than any line of this terminal 电影.mov"


@pytest.mark.parametrize("daemon", [False, True])
def test_put_of_many_files_ends_where_the_provider_takes_none(program: Program, daemon: bool) -> None:
    """One at a time tries whether anything gets through; the others are not waited for until it was their turn."""
    program.vendors.faults("nos.put:500")
    if daemon:
        program.start()
    folder = program.data / "elsewhere"
    folder.mkdir()
    files = [folder / f"{number}.bin" for number in range(30)]
    for number, file in enumerate(files):
        file.write_bytes(b"%d" % number)
    done = program("put", "--provider", "netease", *files)
    assert done.returncode == 5
    assert done.stderr.count("upload node answers 500") == len(files)


def test_put_shows_what_the_server_acknowledged(program: Program) -> None:
    program.vendors.faults("latency=150ms")
    paths = [program.write(name, os.urandom(13 * 2**20)) for name in (LONG, "b.mov")]
    drawn = _on_a_terminal(program, "put", *paths, until=rb"http\S+\r\nhttp\S+\r\n")
    assert LONG in " ".join(drawn.split())
    assert re.search(r"(4|8|12)\.0/13\.0 MiB +[0-9.]+ MB/s 0:00:0\d", drawn)
    assert re.search(r"/26\.0 MiB +[0-9.]+ MB/s 0:00:0\d", drawn)
    assert "1 of 2 files" in drawn or "0 of 2 files" in drawn


def test_status_watch_draws_bars_and_says_what_rests(program: Program) -> None:
    program.start()
    assert program("bandwidth", "6M").returncode == 0
    program.write(LONG, os.urandom(13 * 2**20))
    drawn = _on_a_terminal(program, "status", "--watch", until=rb"(4|8|12)\.0/13\.0 MiB")
    assert LONG in " ".join(drawn.split())
    assert "0 files done, 1 to go, 0 need a person" in drawn
    assert program("pause", "netease").returncode == 0
    assert re.search(r"\b(13|9|5|1)\.0 MiB left", drawn)
    drawn = _on_a_terminal(program, "status", "--watch", until=rb"netease rests until dumbwaiter resume")
    assert program("bandwidth", "off").returncode == 0


def test_names_of_every_kind_are_printed_safely(program: Program) -> None:
    names = [AWKWARD, "相册/照片.jpg", "back\\slash", "with space", "emoji 🎉"]
    for name in names:
        program.write(name, name.encode("utf-8", "surrogateescape"))
    program.start()
    assert program("wait").returncode == 0
    listed = {entry["path"] for entry in program.facts("ls")}
    assert listed == {r"not utf-8 \xff \x1b[31m\x0a.bin", "相册/照片.jpg", r"back\\slash", "with space", "emoji 🎉"}
    plain = program("ls").stdout
    assert "\x1b" not in plain
    assert len(plain.splitlines()) == len(names)
    for name in names:
        done = subprocess.run(
            [sys.executable, "-m", "dumbwaiter", "cat", os.path.join("netease", name)],
            env=program.environment | {"LC_ALL": "C"},
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.stdout == name.encode("utf-8", "surrogateescape"), done.stderr


def test_a_file_may_lie_a_thousand_folders_deep(program: Program) -> None:
    path = program.write("a.txt", b"a")
    folder, deep = str(program.drop), "d/" * 1000
    try:
        for _ in range(1000):  # `os.makedirs` goes no deeper than Python's stack
            folder += "/d"
            os.mkdir(folder)
        leaf = f"{folder}/leaf.txt"
        with open(leaf, "wb") as file:
            file.write(b"leaf")
        assert program("put", path, leaf).returncode == 0
        for words in (["ls"], ["ls", "netease/d"], ["verify"]):
            done = program(*words)
            assert done.returncode == 0, done.stderr
        assert {one["path"] for one in program.facts("ls")} == {"a.txt", f"{deep}leaf.txt"}
    finally:
        subprocess.run(["rm", "-rf", program.drop / "d"], check=True)  # as little does `shutil.rmtree`


def test_cat_reads_from_the_provider_when_the_original_is_gone(program: Program) -> None:
    content = os.urandom(3_000_000)
    path = program.write("film.mov", content)
    assert program("put", path).returncode == 0
    path.unlink()
    done = subprocess.run(
        [sys.executable, "-m", "dumbwaiter", "cat", "netease/film.mov"],
        env=program.environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == content


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("url", "{url}"),
        ("markdown", r"[a \[1\].txt]({url})"),
        ("html", '<a href="{url}">a [1].txt</a>'),
        ("{name} is {size} bytes", "a [1].txt is 3 bytes"),
    ],
)
def test_links_come_in_the_forms_that_people_paste(program: Program, form: str, expected: str) -> None:
    path = program.write("a [1].txt", b"abc")
    url = program("put", path).stdout.strip()
    done = program("link", "netease/a [1].txt", "--format", form)
    assert done.stdout.strip() == expected.replace("{url}", url)


def test_a_key_with_control_characters_is_escaped_as_a_name_is(program: Program) -> None:
    path = program.folder / "red\x1b[31m.txt"
    path.write_bytes(b"a")
    assert program("put", "--provider", "recipe", path).returncode == 0
    assert r"red\x1b[31m.txt" in program("link", path, "--format", "{key}").stdout
    assert r"red\x1b[31m.txt" in _on_a_terminal(program, "link", path, "--format", "{key}!", until=b"!\r\n")


def test_of_a_file_at_two_providers_the_latest_that_has_a_link_gives_it(program: Program) -> None:
    path = program.folder / "x.txt"
    path.write_bytes(b"first")
    link = program("put", "--provider", "netease", path).stdout
    assert program("put", "--provider", "jimeng", path).returncode == 0
    assert program("link", path).stdout == link
    (entry,) = [one for one in program.facts("ls", "keys") if one["provider"] == "jimeng"]
    assert program("link", f"keys/jimeng/{entry['key']}").stdout == ""
    path.write_bytes(b"second version")
    assert program("put", "--provider", "jimeng", path).returncode == 0
    assert program("link", path).stdout == "", "that link shows another version"


def test_a_format_that_is_none_is_refused(program: Program) -> None:
    path = program.write("a.txt", b"abc")
    program("put", path)
    done = program("link", path, "--format", "{nonsense}")
    assert done.returncode == 2
    assert "{url}" in done.stderr


def test_what_the_provider_refuses_needs_a_person(program: Program) -> None:
    program.vendors.faults("nos.put:400")
    path = program.write("a.txt", b"abc")
    done = program("put", path)
    assert done.returncode == 20
    failed = program("failed")
    assert failed.returncode == 20
    assert "a.txt" in failed.stdout
    (job,) = json.loads(program("failed", "--json").stdout)
    program.vendors.faults("")
    assert program("retry", str(job["id"])).returncode == 0
    assert program("put", path).returncode == 0
    assert program("failed").returncode == 0


def test_more_jobs_than_are_listed_are_counted(program: Program) -> None:
    program.vendors.faults("nos.put:400")
    assert program("put", program.write("a.txt", b"abc")).returncode == 20
    program.multiply_jobs(1234)
    for words in (("failed",), ("failed", "--json")):
        told = program(*words)
        assert told.returncode == 20
        assert "these are the latest 1000; 235 more need a person" in told.stderr
    assert program("failed").stdout.count("\n") == 1000
    assert "        and 235 more files\n" in program("status").stdout
    program.start()
    assert "        and 235 more files\n" in program("status").stdout


def test_a_forgotten_job_stays_forgotten(program: Program) -> None:
    program.vendors.faults("nos.put:400")
    program.start()
    program.write("a.txt", b"abc")
    assert program("wait").returncode == 20
    (job,) = json.loads(program("failed", "--json").stdout)
    assert program("forget", str(job["id"])).returncode == 0
    assert program("wait").returncode == 0
    assert program("rescan").returncode == 0
    assert program("wait").returncode == 0
    assert program.totals() | {"pending": 0, "rejected": 0, "superseded": 1} == program.totals()
    assert program("forget", "999").returncode == 1
    assert program("forget", "9" * 20).returncode == 2


def test_an_order_about_what_never_was_makes_no_journal(program: Program) -> None:
    done = program("forget", "1")
    assert (done.returncode, done.stderr) == (1, "dumbwaiter: no such job is waiting or rejected: 1\n")
    assert program("retry", "--all").returncode == 0
    assert not (program.state / "journal.db").exists()


def test_numbers_of_no_job_are_told_beside_those_of_one(program: Program) -> None:
    program.vendors.faults("nos.put:400")
    program.start()
    program.write("a.txt", b"abc")
    assert program("wait").returncode == 20
    (job,) = program.facts("failed")
    done = program("forget", str(job["id"]), "998", "999")
    assert done.returncode == 0
    assert done.stderr == "1 job forgotten\n2 numbers are of no job that waits or was rejected\n"


def test_a_path_is_understood_in_every_form(program: Program) -> None:
    path = program.write("inner/a.txt", b"abc")
    awkward = program.write(AWKWARD, b"x")
    link = program("put", path).stdout
    assert program("put", awkward).returncode == 0
    (entry,) = program.facts("ls", "netease/inner")
    real = program.folder / "elsewhere"
    real.symlink_to(program.drop)
    forms = [
        (path, None),
        (real / "inner/a.txt", None),
        ("a.txt", path.parent),
        ("./a.txt", path.parent),
        ("../netease/inner/a.txt", program.drop),
        ("inner/a.txt", program.drop),
        ("netease/inner/a.txt", None),
        ("files/netease/inner/a.txt", None),
        (f"keys/netease/{entry['key']}", None),
        (program.mount / "files/netease/inner/a.txt", None),
        (program.mount / f"keys/netease/{entry['key']}", None),
        ("files/netease/inner/a.txt", program.mount),
    ]
    assert program("put", real / "inner/a.txt").stdout == link
    assert program("check", real / "inner/a.txt").returncode == 0
    for number, (form, folder) in enumerate(forms):  # one way to understand them serves all commands
        if number % 2:
            assert program("link", form, folder=folder).stdout == link, form
        else:
            assert program("status", form, folder=folder).stdout.startswith("netease/inner/a.txt\n"), form
    shown = program("ls", "netease").stdout.splitlines()
    (escaped,) = [name for name in shown if "\\" in name]
    assert program("cat", escaped).stdout == "x"
    assert "done" in program("status", escaped).stdout


def test_a_watched_folder_may_be_named_by_a_link_and_its_files_by_what_it_leads_to(program: Program) -> None:
    real = program.folder / "real"
    program.drop.rename(real)
    program.drop.symlink_to(real)
    link = program("put", program.write("inner/a.txt", b"abc")).stdout
    for form, folder in ((real / "inner/a.txt", None), ("a.txt", real / "inner"), (program.drop / "inner/a.txt", None)):
        assert program("link", form, folder=folder).stdout == program("put", form, folder=folder).stdout == link
        assert program("status", form, folder=folder).stdout.startswith("netease/inner/a.txt\n")
        assert "watch netease would upload it" in program("check", form, folder=folder).stdout


def test_a_local_file_goes_before_a_folder_of_the_catalog(program: Program) -> None:
    inner, outer = program.write("netease/a.txt", b"inner"), program.write("a.txt", b"outer")
    assert program("put", inner, outer).returncode == 0
    assert program("cat", "netease/a.txt", folder=program.drop).stdout == "inner"
    assert program("cat", "netease/a.txt").stdout == "outer"


def test_an_empty_tree_is_listed_and_a_folder_that_is_not_there_is_not(program: Program) -> None:
    for tree in ("keys", "files", "outbox", "outbox/"):
        done = program("--json", "ls", tree)
        assert (done.returncode, done.stdout) == (0, "[]\n")
    assert program("put", program.write("a.txt", b"a")).returncode == 0
    assert (program("ls", "outbox").returncode, program("ls", "outbox").stdout) == (0, "")
    assert program.facts("ls", "keys")[0]["path"] == "a.txt"
    assert program("ls", "outbox/nothing").returncode == 1


def test_status_says_that_a_file_waits_for_the_program_that_has_it_open(program: Program) -> None:
    program.start()
    path, aside = program.drop / "a.odt", program.folder / "aside"
    aside.write_bytes(b"a")
    with aside.open("r+b"):
        aside.rename(path)
        program.until(lambda: program("status").stdout.splitlines()[-1].startswith("0 done, 1 to go, "))
        assert program("status", path).stderr.endswith(
            " was never seen: watch netease takes it once the program that has it open for writing closes it\n"
        )
    assert program("wait", "--timeout", "60s").returncode == 0
    with path.open("r+b") as document:
        document.write(b"more")
        document.flush()
        assert "a.odt, changed since, and open for writing in a program\n" in program("status", path).stdout


def test_status_says_that_a_file_waits_for_the_rest_of_its_download(program: Program) -> None:
    program.start()
    (program.drop / "folder").mkdir()
    (program.drop / "folder.aria2").write_bytes(b"notes")
    path = program.drop / "folder/film.mov"
    path.write_bytes(b"half")
    assert program("status", path).stderr.endswith(
        " was never seen: watch netease takes it once all of it is downloaded and folder.aria2 is gone\n"
    )
    (program.drop / "folder.aria2").unlink()
    assert program("wait", "--timeout", "60s").returncode == 0
    assert program.stored() == {"folder/film.mov": digest(b"half")}


def test_status_says_of_what_is_no_regular_file_what_check_says(program: Program) -> None:
    assert program("put", program.write("real/a.txt", b"a")).returncode == 0
    (program.drop / "link").symlink_to("real/a.txt")
    (program.drop / "folder").symlink_to("real")
    os.mkfifo(program.drop / "pipe")
    for name in ("link", "folder", "pipe"):
        path = program.drop / name
        assert program("check", path).stdout.splitlines()[0] == f"{path}: no regular file"
        for text in (str(path), f"netease/{name}", f"files/netease/{name}"):
            assert program("status", text).stderr == f"dumbwaiter: {text} was never seen: no regular file\n"


def test_what_lies_behind_a_link_is_left_alone_and_both_say_so(program: Program) -> None:
    assert program("put", program.write("a.txt", b"a")).returncode == 0
    (program.drop / "link").symlink_to("/etc")
    path = program.drop / "link/hostname"
    why = f"{program.drop}/link is a link, and links are not followed"
    assert program("check", path).stdout.splitlines()[0] == f"{path}: {why}"
    assert program("status", path).stderr == f"dumbwaiter: {path} was never seen: {why}\n"


def test_a_folder_in_the_place_of_a_file_is_said(program: Program) -> None:
    assert program("put", program.write("b/a.txt", b"a")).returncode == 0
    for name in ("netease", "netease/b"):
        for command in ("link", "cat", "status"):
            done = program(command, name)
            assert (done.returncode, done.stderr) == (
                1,
                f"dumbwaiter: {name} is a folder: dumbwaiter ls {name} lists what is in it\n",
            )


def test_a_page_in_the_place_of_a_file_is_not_written(program: Program) -> None:
    path = program.write("film.mov", os.urandom(300_000))
    assert program("put", path).returncode == 0
    path.unlink()
    program.vendors.faults("cdn.get:html")
    done = program("cat", "netease/film.mov")
    assert (done.returncode, done.stdout) == (5, "")
    assert "bytes there, not 300000" in done.stderr


def test_a_pause_of_no_time_is_refused(program: Program) -> None:
    done = program("pause", "--for", "0s")
    assert (done.returncode, done.stderr) == (2, "dumbwaiter: a pause lasts longer than no time\n")


def test_status_of_a_file_says_what_happens_next(program: Program) -> None:
    program.vendors.faults("nos.put:500")
    path, junk = program.write("a.txt", b"abc"), program.write("b.part", b"abc")
    assert program("put", path).returncode == 5
    assert "next: it waits for the daemon" in program("status", path).stdout
    assert "leaves it out: junk pattern '*.part'" in program("status", junk).stderr
    program.start()
    assert program("pause", "netease").returncode == 0
    assert "next: netease rests until dumbwaiter resume" in program("status", path).stdout
    (job,) = program.facts("status", path)
    assert job["next"] == "netease rests until dumbwaiter resume"
    program.vendors.faults("")
    assert program("resume").returncode == 0
    assert program("retry", "--all").returncode == 0
    assert program("wait").returncode == 0
    path.unlink()
    story = program("status", path).stdout
    assert f"local file: {path}, gone" in story
    assert "rule: watch netease takes it" in story


def test_status_of_a_file_that_waits_for_its_provider_says_so(program: Program) -> None:
    program.vendors.faults("nos.put:500")
    paths = [program.write(f"{number}.txt", b"abc") for number in range(20)]
    program.start()
    program.until(lambda: program.totals()["pending"] == len(paths) and program.status()["providers"][0]["error"])
    told = [job["next"] for path in paths for job in program.facts("status", path)]
    free = "it is sent as soon as a place is free, and once provider netease takes it, whose latest answer was: "
    assert any(one.startswith((free, "provider netease is tried again ")) for one in told), told


def test_history_ends_where_it_is_told_to(program: Program) -> None:
    for name in ("a.txt", "b.txt"):
        assert program("put", program.write(name, b"x")).returncode == 0
    assert [one["path"] for one in program.facts("history", "--limit", "1")] == ["b.txt"]
    assert len(program.facts("history", "--since", "1h")) == 2
    assert program.facts("history", "--since", "2999-01-01") == []
    assert "2026-03-04" in program("history", "--since", "yesterday").stderr


def test_a_number_that_is_no_job_is_said(program: Program) -> None:
    assert program("put", program.write("a.txt", b"x")).returncode == 0
    for command in ("retry", "forget"):
        done = program(command, "1", "--json")
        assert done.returncode == 1
        assert done.stderr == "dumbwaiter: no such job is waiting or rejected: 1\n"


def test_one_file_without_a_link_does_not_keep_the_others_from_theirs(program: Program) -> None:
    program.write("a.txt", b"abc")
    assert program("put", program.drop / "a.txt").returncode == 0
    done = program("link", "netease/none", "netease/a.txt")
    assert done.returncode == 1
    assert done.stdout.startswith("http")
    assert "netease/none is not at any provider" in done.stderr


@pytest.mark.parametrize(
    ("variable", "tool"),
    [("WAYLAND_DISPLAY", "wl-copy"), ("DISPLAY", "xclip"), ("DISPLAY", "xsel"), ("", "the terminal")],
)
def test_a_link_is_copied_by_whoever_has_the_clipboard(program: Program, variable: str, tool: str) -> None:
    path = program.write("a.txt", b"abc")
    link = program("put", path).stdout.strip()
    tools, clipboard = program.folder / "tools", program.folder / "clipboard"
    tools.mkdir()
    script = tools / tool
    script.write_text(f"#!/bin/sh\n/bin/cat > {clipboard}\n")
    script.chmod(0o755)
    environment = {name: value for name, value in program.environment.items() if "DISPLAY" not in name}
    environment |= {"PATH": str(tools)} | ({variable: "0"} if variable else {})
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "dumbwaiter", "link", "--copy", path],
            env=environment,
            stdin=theirs,
            capture_output=True,
            timeout=60,
            check=False,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        assert done.stderr.decode() == f"copied by {tool}\n"
        if variable:
            assert clipboard.read_text() == link
        else:
            assert b"\x1b]52;c;" + base64.b64encode(link.encode()) + b"\x07" in os.read(ours, 10_000)
    finally:
        os.close(ours)
        os.close(theirs)


LOGIND = """
import os, sys
from jeepney import HeaderFields, MessageType, new_method_return
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import open_dbus_connection
bus = open_dbus_connection("SESSION", enable_fds=True)
bus.send(message_bus.RequestName("org.freedesktop.login1"))
print("ready", flush=True)
while True:
    message = bus.receive()
    if message.header.message_type is MessageType.method_call:
        reader, writer = os.pipe()
        bus.send(new_method_return(message, "h", (writer,)))
        os.close(writer)
        print(*message.body, flush=True)
        os.read(reader, 1)  # returns when whoever holds the other end lets go
        print("released", flush=True)
"""


@pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="there is no dbus-daemon here")
def test_waiting_keeps_the_machine_on_for_as_long_as_it_lasts(program: Program) -> None:
    bus = subprocess.Popen(
        ["dbus-daemon", "--session", "--nofork", "--print-address"], stdout=subprocess.PIPE, text=True
    )
    assert bus.stdout is not None
    address = bus.stdout.readline().strip()
    logind = subprocess.Popen(
        [sys.executable, "-c", LOGIND],
        env=os.environ | {"DBUS_SESSION_BUS_ADDRESS": address},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert logind.stdout is not None
        assert logind.stdout.readline() == "ready\n"
        program.start()
        done = program("wait", "--inhibit", environment={"DBUS_SYSTEM_BUS_ADDRESS": address})
        assert done.returncode == 0
        assert done.stderr == ""
        assert logind.stdout.readline() == "shutdown:sleep:idle dumbwaiter files are being uploaded block\n"
        assert logind.stdout.readline() == "released\n"
    finally:
        for one in (logind, bus):
            one.kill()
            one.communicate()
    done = program("wait", "--inhibit", environment={"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nowhere"})
    assert done.returncode == 0
    assert "not held off" in done.stderr


def test_check_says_what_would_become_of_a_file(program: Program) -> None:
    taken = program.write("a.txt", b"abc")
    junk = program.write("a.part", b"abc")
    done = program("check", taken)
    assert done.returncode == 0
    says = "watch netease would upload it and the provider would name it: NetEase VOD names every object itself"
    assert says in done.stdout
    done = program("check", junk, program.folder / "elsewhere")
    assert done.returncode == 1
    assert "*.part" in done.stdout
    assert "no watched folder" in done.stdout


def test_check_tells_the_same_keys_of_whatever_is_named(program: Program) -> None:
    taken = program.write("a.txt", b"abc")
    others = (program.write("a.part", b"abc"), program.drop, program.drop / "none", program.folder / "elsewhere")
    answer = json.loads(program("--json", "check", taken, *others).stdout)["files"]
    assert {frozenset(one) for one in answer} == {frozenset(answer[0])}
    assert [one["provider"] for one in answer] == ["netease"] * 4 + [None]
    assert [one["taken"] for one in answer] == [True, *([False] * 4)]
    assert not any(one["key"] or one["rule"] for one in answer[1:])


def test_a_key_is_shown_as_harmless_as_a_name(program: Program) -> None:
    program.config.write_text(program.config.read_text().replace('key = "', 'key = "'))
    path = program.data / "drop/recipe" / "red\x1b[31m.txt"
    path.write_bytes(b"x")
    told = program("check", path).stdout
    assert "\x1b" not in told
    assert r"red\x1b[31m.txt" in told


def test_check_online_reads_the_limits_of_a_grant(program: Program) -> None:
    done = program("--json", "check", "--online", program.write("a.txt", b"abc"))
    assert done.returncode == 0, done.stderr
    (fate,) = json.loads(done.stdout)["files"]
    assert fate["limits"]["expires_at"] > 0


def test_check_online_without_files_asks_every_provider(program: Program) -> None:
    done = program("check", "--online")
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^provider \S+ grants uploads: .*until 20", done.stdout, re.MULTILINE)) > 5
    text = program.config.read_text()
    program.config.write_text(re.sub(r'(app_secret|api_key) = "[^"]*"', r'\1 = "wrong"', text))
    done = program("--json", "check", "--online")
    assert done.returncode == 21
    refused = [one for one in json.loads(done.stdout)["providers"] if not one["taken"]]
    assert {"netease", "jiandaoyun"} <= {one["provider"] for one in refused}
    assert [f"dumbwaiter: {one['reason']}" for one in refused] == done.stderr.splitlines()[-len(refused) :]


def test_check_says_what_became_of_this_very_version_already(program: Program) -> None:
    path = program.write("a.txt", b"abc")
    assert program("put", path).returncode == 0
    (entry,) = program.facts("ls", "netease")
    (fate,) = program.facts("check", path)["files"]
    assert (fate["taken"], fate["state"], fate["key"]) == (True, "done", entry["key"])
    program.vendors.faults("nos.put:400")
    path.write_bytes(b"abcd")
    assert program("put", path).returncode == 20
    program.vendors.faults("")
    (job,) = program.facts("failed")
    done = program("check", path)
    assert (done.returncode, f"dumbwaiter retry {job['id']}" in done.stdout) == (1, True)
    assert program("forget", str(job["id"])).returncode == 0
    assert "left alone as it is: forgotten; dumbwaiter put --again sends it" in program("check", path).stdout
    assert program("put", "--again", path).returncode == 0
    path.write_bytes(b"another")
    assert "state" not in program.facts("check", path)["files"][0]


def test_check_says_of_a_file_that_was_only_touched_that_its_content_is_compared(program: Program) -> None:
    path = program.write("inner/a.txt", b"abc")
    assert program("put", path).returncode == 0
    os.utime(path, (1000, 1000))
    (fate,) = program.facts("check", path)["files"]
    assert (fate["taken"], fate["compared"], fate.get("state")) == (True, True, None)
    says = (
        "watch netease would compare its content with what was uploaded, and if that differs upload it and the provider"
    )
    assert says in program("check", path).stdout
    sent = program.totals()["bytes_sent"]
    program.start()
    assert program("wait").returncode == 0
    assert program.totals()["bytes_sent"] == sent  # as it was said
    assert program.facts("check", path)["files"][0]["state"] == "done"
    path.write_bytes(b"longer")
    assert "watch netease would upload it" in program("check", path).stdout


def test_check_says_what_the_rules_say_when_the_journal_cannot(program: Program) -> None:
    path = program.write("a.txt", b"abc")
    assert program("put", path).returncode == 0
    (program.state / "journal.db").write_bytes(b"no database" * 1000)
    done = program("check", path)
    assert (done.returncode, "watch netease would upload it" in done.stdout) == (0, True), done.stderr


def test_check_online_says_of_each_file_what_it_would_meet(program: Program) -> None:
    fits = program.write("a.txt", b"abc")
    large = program.data / "drop/xinhua/large.jpg"
    large.write_bytes(b"\xff\xd8\xff" + bytes(2**20))
    done = program("--json", "check", "--online", fits, large)
    assert done.returncode == 1
    first, second = json.loads(done.stdout)["files"]
    assert (first["taken"], first["key"], second["taken"]) == (True, None, False)
    assert "takes 1048576 at most" in second["reason"]
    told = program("check", "--online", fits).stdout
    assert re.search(r"\n  limits: .*until 20\d\d-", told)


def test_check_online_names_the_key_that_an_upload_would_have(program: Program) -> None:
    text = program.config.read_text()
    program.config.write_text(text.replace("[watch.xinhua]", '[watch.xinhua]\nkey = "{stem}-x{suffix}"'))
    picture = program.data / "drop/xinhua/a.jpg"
    picture.write_bytes(b"\xff\xd8\xff" + bytes(9))
    done = program.data / "drop/careyshop-qiniu/done.txt"
    done.write_bytes(b"done")
    assert program("put", done).returncode == 0
    plain, online = (program.facts("check", *words, picture, done)["files"] for words in ([], ["--online"]))
    assert [one["key"] for one in online] == [one["key"] for one in plain]
    assert online[0]["key"] == "a-x.jpg"


def test_check_of_what_cannot_be_used_says_so_to_programs_too(program: Program) -> None:
    program.config.write_text("[watch.x]\n")
    done = program("--json", "check")
    facts = json.loads(done.stdout)
    assert (done.returncode, facts["usable"], facts["problem"] in done.stderr) == (2, False, True)


def test_an_original_that_cannot_be_read_again_is_warned_of_where_one_looks(program: Program) -> None:
    text = program.config.read_text()
    program.config.write_text(text.replace("[watch.jimeng]", '[watch.jimeng]\nafter = "delete"'))
    why = 'after = "delete" takes away the only copy that can be read: Jimeng gives no way to read a file back'
    line = program.config.read_text().splitlines().index('after = "delete"') + 1
    warning = f"{program.config}, line {line}: [watch.jimeng.after] {why}"
    done = program("check")
    assert (done.returncode, done.stderr) == (0, f"dumbwaiter: {warning}\n")
    assert json.loads(program("--json", "check").stdout)["warnings"] == [warning]
    assert f"warn  watch jimeng: {why}" in program("doctor").stdout
    program.start()
    events = [json.loads(one) for one in program.log.read_text().splitlines()]
    (told,) = [one for one in events if one["event"] == "watch needs care"]
    assert (told["watch"], told["reason"]) == ("jimeng", why)


@pytest.mark.parametrize("words", [("failed",), ("history",), ("ls",), ("verify",)])
def test_before_the_first_upload_there_is_nothing_to_tell(program: Program, words: tuple[str, ...]) -> None:
    done = program(*words)
    assert (done.returncode, done.stdout) == (0, "")
    assert program("--json", *words).stdout in {"[]\n", ""}


def test_a_journal_that_is_just_being_made_has_nothing_to_tell(program: Program) -> None:
    program.state.mkdir(mode=0o700)
    with contextlib.closing(sqlite3.connect(program.state / "journal.db")) as made:  # as the first start does first
        made.execute("PRAGMA journal_mode = WAL")
        done = program("--json", "ls")
        assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
        assert not program.status()["running"]


def test_a_folder_is_known_by_all_its_names(program: Program) -> None:
    program.write(f"sub/{AWKWARD}", b"odd")
    program.start()
    assert program("wait").returncode == 0
    (name,) = program("ls", program.drop).stdout.splitlines()
    for path in (name, name.rpartition("/")[0], program.drop, program.drop / "sub", program.mount):
        assert program("ls", path).stdout.splitlines() == [name], path
        assert program("verify", path).returncode == 0
    (key,) = program("ls", "keys").stdout.splitlines()
    assert program("link", key).returncode == 0
    assert "watch netease: name a file in it" in program("check", program.drop).stdout
    assert "is a folder" in program("status", program.drop / "sub").stderr
    done = program("--json", "status", "/nowhere/at/all")
    assert (done.returncode, done.stdout) == (1, "")


def test_the_outbox_is_listed_too(program: Program) -> None:
    program.start()
    program("pause")
    program.write("a.bin", b"abc")
    program.until(lambda: program.totals()["pending"] == 1)
    assert program("ls", "outbox").stdout == "outbox/netease/a.bin\n"
    (one,) = program.facts("ls", "outbox")
    assert (one["path"], one["size"], one["state"], one["url"]) == ("a.bin", 3, "pending", None)


def test_cat_of_the_outbox_gives_the_original_while_it_is_unchanged(program: Program) -> None:
    program.vendors.faults("nos.put:500")
    path = program.write("a b.bin", b"abc")
    assert program("put", path).returncode == 5
    assert program("cat", "outbox/netease/a b.bin").stdout == "abc"
    path.write_bytes(b"another")
    done = program("cat", "outbox/netease/a b.bin")
    assert (done.returncode, done.stdout, "is not at any provider" in done.stderr) == (1, "", True)


@pytest.mark.parametrize("words", [("status",), ("--json", "status"), ("ls", "-l")])
def test_a_full_disk_behind_the_output_is_one_sentence(program: Program, words: tuple[str, ...]) -> None:
    program.start()
    program.write("a.bin", b"abc")
    assert program("wait").returncode == 0
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "dumbwaiter", *words],
            env=program.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert re.fullmatch(r"dumbwaiter: .*[Nn]o space left on device\n", done.stderr)


def test_help_is_whole_without_a_terminal(program: Program) -> None:
    told = program("--help", environment={"COLUMNS": "40"}).stdout
    assert "..." not in told.partition("Commands:")[2]


def test_a_watch_and_another_provider_do_not_go_together(program: Program) -> None:
    done = program("put", "--watch", "recipe", "--provider", "netease", program.write("a", b"a"))
    assert done.returncode == 2
    assert "not both" in done.stderr


def test_init_writes_a_configuration_that_check_takes(program: Program) -> None:
    config = program.folder / "new/config.toml"
    watch = program.folder / "drop here"
    watch.mkdir()
    flags = ("--app-key", "k", "--secret-env", "S", "--watch", str(watch))
    done = program("--config", str(config), "init", *flags)
    assert done.returncode == 0, done.stderr
    assert config.stat().st_mode & 0o777 == 0o600
    assert program("--config", str(config), "check", environment={"S": "x"}).returncode == 0
    again = program("--config", str(config), "init", *flags)
    assert again.returncode == 2
    assert "--force" in again.stderr
    silent = program("--config", str(program.folder / "other.toml"), "init")
    assert silent.returncode == 2
    assert "--app-key" in silent.stderr


def test_an_ignore_file_is_followed_as_it_changes(program: Program) -> None:
    program.write(".dumbwaiterignore", b"*.raw\n")
    program.start()
    program.write("a.raw", b"a")
    program.write("b.txt", b"b")
    assert program("wait").returncode == 0
    assert set(program.stored()) == {"b.txt"}
    program.write(".dumbwaiterignore", b"")
    program.until(lambda: len(program.objects()) == 2)
    assert program("wait").returncode == 0
    assert set(program.stored()) == {"a.raw", "b.txt"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_by_example(program: Program, command: str) -> None:
    done = program(command, "--help")
    assert done.returncode == 0
    assert f"Usage: dumbwaiter {command}" in done.stdout
    assert f"\n  dumbwaiter {command}" in done.stdout


@pytest.mark.torture
def test_a_daemon_whose_socket_is_not_found_is_told_of(program: Program, tmp_path: Path) -> None:
    program.start()
    film = tmp_path / "film.mov"
    film.write_bytes(b"film")
    elsewhere = {"DUMBWAITER_RUNTIME": str(tmp_path / "elsewhere")}
    for words in (["put", str(film)], ["retry", "--all"], ["sync", "--remote"]):
        done = program(*words, environment=elsewhere)
        assert done.returncode == 5
        assert f"a daemon has {program.state} and does not listen at {tmp_path}/elsewhere/control.sock" in done.stderr
    for words in (["wait"], ["pause"]):
        done = program(*words, environment=elsewhere)
        assert done.returncode == 23
        assert f"a daemon has {program.state} and does not listen at" in done.stderr
    facts = json.loads(program("status", "--json", environment=elsewhere).stdout)
    assert "does not listen" in facts["trouble"]
    program.stop()
    assert json.loads(program("status", "--json", environment=elsewhere).stdout)["trouble"] is None


def test_a_daemon_is_found_by_those_who_have_other_variables(program: Program, tmp_path: Path) -> None:
    session = tmp_path / "session"
    session.mkdir(0o700)
    del program.environment["DUMBWAITER_STATE"]
    program.environment |= {"XDG_STATE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    program.start(environment={"XDG_RUNTIME_DIR": str(session)})
    for runtime in ("/nonexistent", str(tmp_path)):
        elsewhere = {"XDG_RUNTIME_DIR": runtime}
        assert program("wait", environment=elsewhere).returncode == 0
        assert program("status", environment=elsewhere).stdout.startswith("running")


@pytest.mark.slow
@pytest.mark.torture
def test_a_daemon_that_stands_still_holds_up_nobody_for_ever(program: Program) -> None:
    program.vendors.faults("nos.put:400")
    program.start()
    program.write("a.txt", b"abc")
    assert program("wait").returncode == 20
    assert program.daemon is not None
    program.daemon.send_signal(signal.SIGSTOP)
    try:
        with program.begin("failed") as failed:
            assert failed.stdout is not None
            assert "netease/a.txt: " in failed.stdout.readline()  # of the journal, before the daemon is asked
            failed.kill()
        done = program("wait", "--timeout", "1s")
        assert (done.returncode, done.stderr) == (5, "dumbwaiter: not everything is done yet\n")
        done = program("status")
        assert (done.returncode, done.stderr) == (5, "dumbwaiter: the daemon does not answer\n")
    finally:
        program.daemon.send_signal(signal.SIGCONT)


def test_one_file_is_not_watched(program: Program) -> None:
    assert program("status", "--watch", "netease/film.mov").returncode == 2


def test_a_sandbox_without_a_place_for_its_data_says_so(program: Program) -> None:
    done = program("sandbox", "--data", "/dev/null")
    assert done.returncode == 1
    assert done.stderr == "dumbwaiter: /dev/null/sandbox cannot be used (Not a directory): name another --data\n"


def test_a_sandbox_leaves_a_configuration_alone_that_it_did_not_write(program: Program, tmp_path: Path) -> None:
    own = tmp_path / "mine/config.toml"
    own.parent.mkdir()
    own.write_text("# mine\n")
    done = program("sandbox", "--data", own.parent, "--seconds", "0")
    said = f"dumbwaiter: {own} cannot be used (it is there, and no sandbox wrote it): name another --data\n"
    assert (done.returncode, done.stderr) == (1, said)
    assert (os.listdir(own.parent), own.read_text()) == (["config.toml"], "# mine\n")


def test_who_waits_has_a_folder_looked_through_that_nobody_hears(program: Program) -> None:
    text = program.config.read_text()
    program.config.write_text(text.replace("[watch.netease]", "[watch.netease]\npolling = true"))
    program.start()
    assert program("wait").returncode == 0
    for number in range(2):
        program.write(f"{number}.bin", b"%d" % number)
        assert program("wait").returncode == 0
        assert len(program.stored()) == number + 1


def test_who_waits_knows_of_what_was_written_the_moment_before(program: Program) -> None:
    program.start()
    assert program("wait").returncode == 0
    for count in range(1, 9):
        (program.drop / f"{count}/b/c").mkdir(parents=True)
        (program.drop / f"{count}/b/c/film.mov").write_bytes(b"film")
        with contextlib.closing(
            Connection(str(program.state / "run/control.sock"), str(program.state), 30.0)
        ) as connection:
            connection.request("GET", "/status?jobs=0&follow=1")
            facts = json.loads(connection.getresponse().readline())
        left = facts["settling"] + facts["totals"]["pending"] + facts["totals"]["stored"]
        assert left or facts["totals"]["done"] == count
        assert program("wait").returncode == 0
        assert len(program.stored()) == count
