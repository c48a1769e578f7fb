"""Every mistake gets one clear sentence on stderr and the exit code that scripts can rely on."""

import contextlib
import json
import os
import pty
import re
import resource
import shutil
import signal
import socketserver
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import pytest
from sqlalchemy import text

from dumbwaiter.cli.commands import cli
from dumbwaiter.errors import Exit, Failure
from dumbwaiter.installation import open_lock
from dumbwaiter.model import MIB
from dumbwaiter.places import places
from dumbwaiter.store.database import journal_url, writing
from dumbwaiter.store.upgrade import upgrade
from program import Program, digest

# Commands that take a name, a path or a time.
NAMING = (
    *("put", "wait", "rescan", "check", "pause", "resume", "bandwidth", "claim", "sync", "status", "verify", "ls"),
    *("cat", "link", "history", "mount", "umount", "doctor", "demo"),
)


def sentence(done: "subprocess.CompletedProcess[str]") -> str:
    """The one sentence that a person reads; a traceback or a second line is a failure."""
    assert done.stderr.startswith("dumbwaiter: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def _named(rows: list[dict[str, Any]], name: str = "netease") -> dict[str, Any]:
    return next(row for row in rows if row["name"] == name)


def place(program: Program, key: str, table: str) -> str:
    """File, line and key of what the configuration says there."""
    lines = program.config.read_text().splitlines()
    head = lines.index(f"[{table}]")
    number = next(one for one in range(head, len(lines)) if lines[one].startswith(f"{key} =")) + 1
    return f"{program.config}, line {number}: [{table}.{key}]"


def edit(program: Program, old: str, new: str) -> None:
    text = program.config.read_text()
    assert old in text
    program.config.write_text(text.replace(old, new))


@pytest.mark.parametrize("command", ["check", "run", "status", "mount"])
def test_a_missing_configuration_is_said(program: Program, command: str) -> None:
    program.config.unlink()
    done = program(command)
    assert done.returncode == 2
    assert "dumbwaiter init" in sentence(done)


def test_an_unknown_key_names_line_and_nearest_key(program: Program) -> None:
    edit(program, "settle =", "settel =")
    done = program("run")
    assert done.returncode == 2
    line = program.config.read_text().splitlines().index('settel = "200ms"') + 1
    assert f"line {line}" in sentence(done)
    assert 'did you mean "settle"?' in done.stderr


def test_a_secret_file_must_exist_and_be_private(program: Program) -> None:
    secret = program.folder / "secret"
    literal = program.vendors.sandbox.accounts["netease"]["app_secret"]
    edit(program, f'app_secret = "{literal}"', f'app_secret = {{ file = "{secret}" }}')
    done = program("run")
    assert done.returncode == 2
    assert f"{secret} does not exist" in sentence(done)
    secret.write_text(literal)
    secret.chmod(0o644)
    done = program("check")
    assert done.returncode == 2
    assert f"chmod 600 {secret}" in sentence(done)
    secret.chmod(0o600)
    assert program("check").returncode == 0


def test_a_literal_secret_needs_a_private_configuration(program: Program) -> None:
    program.config.chmod(0o644)
    done = program("run")
    assert done.returncode == 2
    assert "others can read" in sentence(done)
    assert program.vendors.sandbox.accounts["netease"]["app_secret"] not in done.stderr


@pytest.mark.parametrize("token", ["sessionid=abc; other=1", "us-", "0c1d 2e", "中"])
def test_a_jimeng_session_that_is_none_is_said_at_its_line(program: Program, token: str) -> None:
    edit(
        program,
        f'refresh_token = "{program.vendors.sandbox.accounts["jimeng"]["session_cn"]}"',
        f'refresh_token = "{token}"',
    )
    for command in ("check", "run"):
        done = program(command)
        assert done.returncode == 2
        assert sentence(done).startswith(f"dumbwaiter: {place(program, 'refresh_token', 'provider.jimeng')} ")
        assert 'copy the cookie "sessionid" alone' in done.stderr
        assert token not in done.stderr


def test_a_configuration_with_nothing_to_do_is_not_usable(program: Program) -> None:
    text = program.config.read_text()
    program.config.write_text("[limits]\ntransfers = 2\n")
    for command in ("check", "run"):
        assert program(command).returncode == 2
    assert "add a [provider.NAME] table" in sentence(program("check"))
    program.config.write_text(text.partition("[watch.")[0])
    assert program("check").stdout.endswith("0 watches, so it is for `put` alone\n")


def test_a_watch_folder_that_never_was_there_is_a_mistake(program: Program) -> None:
    program.drop.rmdir()
    for command in ("check", "run"):
        done = program(command)
        assert done.returncode == 2
        assert sentence(done).startswith(f"dumbwaiter: {place(program, 'path', 'watch.netease')} ")
        assert done.stderr.endswith(f" the folder is not there: mkdir -p {program.drop}\n")


def test_a_watch_folder_that_was_there_is_waited_for(program: Program) -> None:
    program.write("a.bin", b"a")
    program.start()
    assert program("wait").returncode == 0
    assert program.stop() == 0
    away = program.folder / "away"
    program.drop.rename(away)
    program.start()
    program.until(lambda: _named(program.status()["watches"])["state"] == "away")
    (away / "b.bin").write_bytes(b"b")
    away.rename(program.drop)
    program.until(lambda: len(program.objects()) == 2)
    assert program("wait").returncode == 0
    assert program.totals()["superseded"] == 0


def test_a_state_folder_inside_a_watch_is_refused_before_anything_is_made(program: Program) -> None:
    for words in (("run",), ("check",), ("put", "--provider", "netease", program.write("a.txt", b"a"))):
        state = program.drop / "state"
        done = program("--state", state, *words)
        assert done.returncode == 2
        assert "dumbwaiter would upload its own files" in sentence(done)
        assert not state.exists()


def test_a_blank_that_a_recipe_does_not_know_is_refused_by_name(program: Program) -> None:
    text = program.config.read_text()
    assert "{secret.api_key}" in text
    program.config.write_text(text.replace("{secret.api_key}", "{secret.apikey}", 1))
    done = program("check")
    assert done.returncode == 2
    assert "unknown blank {secret.apikey}; known: {key} {name}" in sentence(done)


def test_a_configuration_that_others_can_write_is_warned_of_and_works(program: Program) -> None:
    folder = program.config.parent
    folder.chmod(0o757)
    said = f"others can write {folder}, and so have commands run as you: chmod go-w {folder}"
    done = program("check")
    assert (done.returncode, said in done.stderr, "is usable" in done.stdout) == (0, True, True)
    found = json.loads(program("doctor", "--json").stdout)["checks"]
    (warned,) = [one for one in found if one["check"] == "configuration" and one["level"] == "warn"]
    assert f"{warned['says']}: {warned['remedy']}" == said
    program.start()


def test_what_run_would_refuse_check_refuses_too(program: Program) -> None:
    text = program.config.read_text()
    plain = program.folder / "file"
    plain.write_bytes(b"")
    program.config.write_text(text.replace("[watch.netease]", f'[watch.netease]\nafter = "move:{plain}"'))
    done = program("check")
    assert (done.returncode, f"{plain} is no folder" in sentence(done)) == (2, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_users_daemon_is_said_to_be_anothers(program: Program) -> None:
    program.start()
    words = [
        *("setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-m", "dumbwaiter"),
        "--state",
        str(program.state),
    ]
    done = subprocess.run([*words, "pause"], capture_output=True, text=True, timeout=60, check=False, cwd="/")
    assert done.returncode == 2, done.stderr
    assert "control.sock is closed to this user: name another folder" in done.stderr


@pytest.mark.parametrize("kind", ["literal", "file"])
def test_no_watch_uploads_a_secret_of_dumbwaiters_own(program: Program, kind: str) -> None:
    home = program.folder / "home"
    (home / ".config/dumbwaiter").mkdir(parents=True)
    (program.folder / "link").symlink_to(home)
    config, kept = home / ".config/dumbwaiter/config.toml", home / "kept"
    kept.write_text("s3cret")
    kept.chmod(0o600)
    said = '"s3cret"' if kind == "literal" else f'{{ file = "{kept}" }}'
    text = (
        f'[provider.vod]\nbroker = "netease"\napp_key = "k"\napp_secret = {said}\n'
        f'[watch.home]\npath = "{program.folder}/link"\nprovider = "vod"\n'
    )
    config.write_text(text)
    config.chmod(0o600)
    environment = {"DUMBWAITER_CONFIG": str(config)}
    done = program("check", environment=environment)
    assert done.returncode == 2
    held = config if kind == "literal" else kept
    assert sentence(done) == (
        f"dumbwaiter: watch.home would upload {held}, which holds a secret: name it in exclude, or keep it elsewhere\n"
    )
    config.write_text(f'{text}exclude = ["/kept", "/.config/dumbwaiter/"]\n')
    assert program("check", environment=environment).returncode == 0
    config.write_text(text)
    (home / ".dumbwaiterignore").write_text("/kept\n/.config/\n")
    assert program("check", environment=environment).returncode == 0


def test_two_watches_on_one_folder_are_refused(program: Program) -> None:
    with program.config.open("a") as file:
        file.write(f'\n[watch.again]\npath = "{program.drop}/inner"\nprovider = "netease"\n')
    done = program("run")
    assert done.returncode == 2
    assert "lie in one another" in sentence(done)


def test_a_mount_point_must_be_there_and_empty(program: Program) -> None:
    (program.mount / "mine.txt").write_text("x")
    for words in ("not empty", "mkdir -p"):
        done = program("mount")
        assert done.returncode == 2
        assert words in sentence(done)
        done = program("check")
        assert done.returncode == 0, "uploads do without it"
        assert words in done.stderr
        shutil.rmtree(program.mount, ignore_errors=True)


def test_an_unreachable_provider_is_temporary(program: Program) -> None:
    path = program.write("a.bin", b"a")
    url = program.vendors.sandbox.urls["vod"]
    edit(program, f'"{url}"', '"http://127.0.0.1:1"')
    done = program("put", path)
    assert done.returncode == 5
    assert "127.0.0.1:1 cannot be reached (connection refused)" in sentence(done)
    edit(program, '"http://127.0.0.1:1"', f'"{url}"')
    assert program("put", path).returncode == 0


def test_a_wrong_secret_blocks_the_account(program: Program) -> None:
    path = program.write("a.bin", b"a")
    secret = program.vendors.sandbox.accounts["netease"]["app_secret"]
    edit(program, f'"{secret}"', '"wrong"')
    done = program("put", path)
    assert done.returncode == 21
    assert "AppSecret" in sentence(done)
    program.start()
    program.until(lambda: _named(program.status()["providers"])["state"] == "blocked")
    done = program("wait", "--timeout", "20s")
    assert done.returncode == 21
    assert "AppSecret" in sentence(done)
    assert program.totals()["rejected"] == 0
    assert program.stop() == 0
    edit(program, '"wrong"', f'"{secret}"')
    program.start()
    assert program("wait").returncode == 0


@pytest.mark.parametrize(
    ("provider", "path", "said"),
    [
        ("careyshop", "/api/v1", "check api"),
        ("recipe", "/v1/uploads", "(status 404): check request.url"),
    ],
)
def test_an_address_where_the_service_is_not_blocks_the_provider(
    program: Program, provider: str, path: str, said: str
) -> None:
    text = program.config.read_text()
    head, table, rest = text.partition(f"[provider.{provider}]")
    program.config.write_text(head + table + rest.replace(path, "/elsewhere", 1))
    file = program.folder / "a.bin"
    file.write_bytes(b"a")
    done = program("put", "--provider", provider, file)
    assert done.returncode == 21
    assert said in sentence(done)
    program.config.write_text(text)
    assert program("put", "--provider", provider, file).returncode == 0


def test_a_second_daemon_is_refused(program: Program) -> None:
    program.start()
    done = program("run")
    assert done.returncode == 1
    assert "already running" in sentence(done)


@pytest.mark.parametrize("command", [("rescan",), ("wait",)])
def test_commands_that_need_the_daemon_say_so(program: Program, command: tuple[str, ...]) -> None:
    done = program(*command)
    assert done.returncode == 23
    assert "dumbwaiter run" in sentence(done)


def _words(command: str) -> list[list[str]]:
    """Returns command lines with nothing in the place of one word, for each argument and option that takes one."""
    found = cli.get_command(click.Context(cli), command)
    assert found is not None
    needed = ["x" for one in found.params if isinstance(one, click.Argument) and one.required]
    return [
        [command, one.opts[0], "", *needed] if isinstance(one, click.Option) else [command, ""]
        for one in found.params
        if one.type.name in {"text", "path"}
    ]


@pytest.mark.parametrize(
    "words", [*(words for name in NAMING for words in _words(name)), ["sandbox", "--data", ""]], ids=" ".join
)
def test_an_empty_word_is_refused(words: list[str]) -> None:
    with pytest.raises(Failure, match=r" is empty, and names nothing$") as one:
        cli.main(words, standalone_mode=False)
    assert one.value.code is Exit.USAGE


@pytest.mark.parametrize("command", ["demo", "sandbox"])
def test_what_runs_for_a_while_takes_no_time_before_now(command: str) -> None:
    with pytest.raises(click.BadParameter, match="-1"):
        cli.main([command, "--seconds", "-1"], standalone_mode=False)


def test_a_pause_of_a_variable_that_is_not_set_is_none(program: Program) -> None:
    program.start()
    for place in ("--config", "--state", "--cache", "--runtime"):
        done = program(place, "", "status")
        assert (done.returncode, sentence(done)) == (2, f"dumbwaiter: {place} is empty, and names nothing\n")
    done = program("pause", "")
    assert (done.returncode, sentence(done)) == (2, "dumbwaiter: NAME is empty, and names nothing\n")
    assert program.status()["paused"] == []


def test_put_of_what_is_no_file_is_refused(program: Program) -> None:
    for path in (program.folder / "missing", program.drop):
        done = program("put", path)
        assert done.returncode == 2
        assert str(path) in sentence(done)


def test_put_takes_a_provider_or_a_watch(program: Program) -> None:
    """What the socket is asked, too: with a daemon the command asks there."""
    words = ("put", program.write("a.bin", b"a"), "--provider", "netease", "--watch", "netease")
    assert "not both" in sentence(program(*words))
    program.start()
    assert "not both" in sentence(program(*words))


@pytest.mark.parametrize(
    "framing",
    [
        "transfer-encoding: chunked\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "content-length: 100\r\n\r\n",
    ],
)
@pytest.mark.parametrize("command", ["put", "pause"])
def test_a_daemon_that_ends_before_it_answers_is_one_sentence(program: Program, framing: str, command: str) -> None:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n{framing}".encode()

    class Ends(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            length = 0
            while (line := self.rfile.readline()).strip():
                length = int(line.partition(b":")[2]) if line.lower().startswith(b"content-length") else length
            self.rfile.read(length)
            self.wfile.write(head)

    (program.state / "run").mkdir(parents=True)
    file = program.folder / "a.bin"
    file.write_bytes(b"x")
    with socketserver.UnixStreamServer(str(program.state / "run/control.sock"), Ends) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            done = program(command, *([file, "--provider", "netease"] if command == "put" else []))
        finally:
            server.shutdown()
    assert done.returncode == 5
    assert "the daemon broke off" in sentence(done)


@pytest.mark.parametrize("words", [(), ("--timeout", "1h")])
def test_who_waits_hears_that_the_daemon_has_ended(program: Program, words: tuple[str, ...]) -> None:
    state = {"totals": {"pending": 1, "stored": 0}, "settling": 0, "trouble": None, "paused": [], "providers": []}
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\nconnection: close\r\n\r\n"

    class Ends(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(head + json.dumps(state).encode() + b"\n")

    (program.state / "run").mkdir(parents=True)
    with socketserver.UnixStreamServer(str(program.state / "run/control.sock"), Ends) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            done = program("wait", *words)
        finally:
            server.shutdown()
    assert (done.returncode, sentence(done)) == (23, "dumbwaiter: the daemon has ended\n")


def test_put_through_the_daemon_takes_whatever_a_command_line_holds(program: Program) -> None:
    program.start()
    names = [f"{number}{'字' * 60}" for number in range(8000)]
    done = program("put", "--provider", "netease", *names, folder=program.folder)
    assert (done.returncode, names[0] in sentence(done)) == (2, True), done.stderr


def test_a_daemon_that_does_not_take_a_request_to_its_end_is_heard(program: Program) -> None:
    content = b'{"error":"the request is too large","code":2}'
    head = f"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: {len(content)}\r\n\r\n".encode()

    class Refuses(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(100)
            self.request.sendall(head + content)

    (program.state / "run").mkdir(parents=True)
    with socketserver.UnixStreamServer(str(program.state / "run/control.sock"), Refuses) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            done = program("put", *(f"{number}{'x' * 200}" for number in range(5000)), "--provider", "netease")
        finally:
            server.shutdown()
    assert (done.returncode, sentence(done)) == (2, "dumbwaiter: the request is too large\n")


def test_put_of_what_the_daemon_may_not_read_is_refused(program: Program) -> None:
    closed = program.folder / "closed.bin"
    closed.write_bytes(b"x")
    closed.chmod(0)
    weak = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
    program.start(*weak, sys.executable, "-m", "dumbwaiter")
    done = program("put", closed, "--provider", "netease")
    assert done.returncode == 2
    assert f"{closed} may not be read by the user who uploads" in sentence(done)
    assert program.totals()["pending"] == 0


def test_an_unknown_option_is_usage(program: Program) -> None:
    assert program("status", "--nonsense").returncode == 2
    assert program("nonsense").returncode == 2


@pytest.mark.parametrize(
    "words", [("retry", "9" * 23), ("forget", "9" * 23), ("history", "-n", "9" * 20)], ids=lambda words: words[0]
)
def test_a_number_that_no_journal_can_hold_is_usage(program: Program, words: tuple[str, ...]) -> None:
    """Also where a daemon is asked: the number is wrong, and not the journal in trouble."""
    program.start()
    asked = program(*words)
    assert program.stop() == 0
    for done in (asked, program(*words)):
        assert done.returncode == 2
        assert "journal" not in sentence(done)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount a small file system")
@pytest.mark.torture
def test_a_full_disk_under_the_state_folder_is_weather(program: Program) -> None:
    program.state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16M", "tmpfs", program.state], check=True)
    try:
        program.start()
        stuffing = program.state / "stuffing"
        with stuffing.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        contents = {f"file {number}.bin": os.urandom(100) for number in range(200)}
        for name, content in contents.items():
            program.write(name, content)
        program.until(lambda: program.status()["trouble"])
        assert "! the journal cannot be written" in program("status").stdout
        stuffing.unlink()
        assert program("wait", "--timeout", "50s").returncode == 0
        assert program.stored() == {name: digest(content) for name, content in contents.items()}
        assert program.status()["trouble"] is None
        assert program.stop() == 0
    finally:
        program.kill()
        subprocess.run(["umount", "-l", program.state], check=True)


def test_sigterm_ends_within_ten_seconds_in_the_middle_of_work(program: Program) -> None:
    program.vendors.faults("nos.put:stall")
    program.start()
    for number in range(6):
        program.write(f"{number}.bin", os.urandom(MIB))
    program.until(lambda: program.vendors.log("put"))
    started = time.monotonic()
    assert program.stop() == 0
    assert time.monotonic() - started < 10
    assert "Traceback" not in program.log.read_text()


def test_a_terminal_that_goes_ends_the_daemon_as_it_should(program: Program) -> None:
    ours, theirs = pty.openpty()
    words = ["env", "--default-signal=HUP", "setsid", "--ctty", sys.executable, "-m", "dumbwaiter", "run"]
    with open(program.log, "ab") as log:
        program.daemon = subprocess.Popen(words, env=program.environment, stdin=theirs, stdout=log, stderr=log)
    os.close(theirs)
    program.until(lambda: '"running": true' in program("--json", "status").stdout)
    os.close(ours)
    assert program.daemon.wait(10) == 0
    program.daemon = None


@pytest.mark.parametrize("prefix", [["nohup"], ["setsid"]])
def test_under_nohup_and_without_a_terminal_it_stays(program: Program, prefix: list[str]) -> None:
    program.start(*prefix, sys.executable, "-m", "dumbwaiter")
    assert program.daemon is not None
    program.daemon.send_signal(signal.SIGHUP)
    assert program("put", program.write("a.bin", b"a")).returncode == 0
    assert program.daemon.poll() is None
    assert program.stop() == 0


def test_a_journal_that_was_put_back_alone_is_still_this_machines(program: Program) -> None:
    program.write("a.bin", b"a")
    assert program("put", program.drop / "a.bin").returncode == 0
    name = (program.state / "host").read_text()
    (program.state / "host").unlink()
    program.start()
    assert program("wait").returncode == 0
    assert (program.totals()["done"], (program.state / "host").read_text()) == (1, name)
    assert len(program.vendors.log("put")) == 1
    assert program.stop() == 0
    (program.state / "host").unlink()
    with closing(sqlite3.connect(program.state / "journal.db")) as journal, journal:
        journal.execute(
            "INSERT INTO jobs SELECT NULL, 'another', watch, parent, name, provider, inode, size, mtime_ns, ctime_ns, state, key,"
            ' "grant", checkpoint, receipt, digest, sent, resent, attempts, due_at, lease, lease_until, error, created_at,'
            " updated_at, proposed, by_hand, grant_until FROM jobs"
        )
    done = program("put", program.drop / "a.bin")
    assert (done.returncode, "is of several machines" in done.stderr) == (2, True)


@pytest.mark.parametrize("words", [("status",), ("ls",), ("history",), ("failed",), ("verify",)])
def test_a_newer_dumbwaiters_journal_is_not_read(program: Program, words: tuple[str, ...]) -> None:
    program.state.mkdir()
    engine = writing(journal_url(str(program.state)))
    upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    (program.state / "host").write_text("f00d")
    done = program(*words)
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert sentence(done).startswith("dumbwaiter: the journal has schema 9999, this dumbwaiter knows ")


def test_nothing_is_left_open_after_a_run_of_the_python_warnings(program: Program) -> None:
    """Unawaited coroutines, unclosed sockets and files: each is a warning, and each warning a fault."""
    path = program.write("a.bin", b"a" * 1000)
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-m", "dumbwaiter", "put", path],
        env=program.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr


@pytest.mark.parametrize("command", [("run",), ("status",), ("ls",), ("retry", "--all"), ("failed",)])
def test_a_journal_that_is_no_database_is_said_with_its_remedy(program: Program, command: tuple[str, ...]) -> None:
    program.state.mkdir(mode=0o700)
    journal = program.state / "journal.db"
    journal.write_bytes(b"garbage" * 4096)
    done = program(*command)
    assert done.returncode == 2
    assert "the journal is damaged" in sentence(done)
    assert journal.read_bytes() == b"garbage" * 4096


READERS = [("status",), ("status", "netease/a.bin"), ("ls",), ("history",), ("failed",), ("verify",)]


def test_a_journal_that_was_there_and_is_gone_is_told_by_all_who_ask(program: Program) -> None:
    assert program("put", program.write("a.bin", b"a")).returncode == 0
    for path in program.state.glob("journal.db*"):
        path.unlink()
    for command in (("run",), *READERS):
        done = program(*command)
        assert done.returncode == 2
        assert sentence(done) == (
            f"dumbwaiter: the journal {program.state}/journal.db is missing or empty, but there was one: "
            "dumbwaiter recover puts its last copy back\n"
        )
    done = program("doctor")
    assert done.returncode == 1
    assert "fail  journal: " in done.stdout
    assert "→ dumbwaiter recover puts its last copy back" in done.stdout


@pytest.mark.parametrize("command", [("run",), ("put",), ("retry", "--all"), *READERS])
def test_a_state_folder_that_is_none_is_said_with_its_remedy(program: Program, command: tuple[str, ...]) -> None:
    words = [*command, *([program.write("a.bin", b"a")] if command == ("put",) else [])]
    program.state.touch()
    done = program(*words)
    assert done.returncode == 2
    assert sentence(done).endswith(f"{program.state} is no folder: name another one with --state\n")
    program.state.unlink()
    (program.state / "journal.db").mkdir(parents=True)
    done = program(*words)
    assert done.returncode == 2
    assert sentence(done).endswith(
        f"{program.state}/journal.db is a folder, where the journal has to be: move it away\n"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount")
def test_a_state_folder_that_cannot_be_written_is_weather(program: Program) -> None:
    path = program.write("a.bin", b"a")
    assert program("put", path).returncode == 0
    subprocess.run(["mount", "--bind", program.state, program.state], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", program.state], check=True)
        for command in (("run",), ("put", path), ("retry", "--all")):
            done = program(*command)
            assert done.returncode == 5
            assert sentence(done).endswith(
                f"{program.state} is on a read-only file system: have it mounted writable, "
                "or name another one with --state\n"
            )
        assert f"fail  space for state: {program.state} is on a read-only file system" in program("doctor").stdout
    finally:
        subprocess.run(["umount", "-l", program.state], check=True)


@pytest.mark.parametrize("command", [("run",), ("status",), ("ls",)])
def test_a_database_server_that_is_away_is_temporary(program: Program, command: tuple[str, ...]) -> None:
    url = "postgresql+psycopg://someone:hidden-word@127.0.0.1:1/journal"
    program.config.write_text(f'journal = "{url}"\n{program.config.read_text()}')
    done = program(*command)
    assert done.returncode == 5
    assert "onnection refused" in sentence(done)
    assert "hidden-word" not in done.stderr


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("status | head -1", 0, ""),
        ("--help | head -1", 0, ""),
        ("--version | true", 0, ""),
        ("check $(seq 9000) | head -1", 0, ""),
        ("cat netease/large | head -c 1", 0, ""),
        ("ls >&-", 0, ""),
        ("ls <&- >&- 2>&-", 0, ""),
        ("ls >/dev/full", 1, "dumbwaiter: the output cannot be written: No space left on device\n"),
        ("cat netease/large >/dev/full", 1, "dumbwaiter: the output cannot be written: No space left on device\n"),
        ("--help >/dev/full", 1, "dumbwaiter: the output cannot be written: No space left on device\n"),
        ("nonsense", 2, "dumbwaiter: no such command 'nonsense': see `dumbwaiter --help`\n"),
        (
            "retry one",
            2,
            "dumbwaiter: invalid value for '[IDS]...': 'one' is not a valid number: see `dumbwaiter retry --help`\n",
        ),
        ("put $'/none/\\xff\\n'", 2, "dumbwaiter: /none/\\xff\\x0a: No such file or directory\n"),
        ("--config / check", 2, "dumbwaiter: / cannot be read: Is a directory\n"),
        (
            "--state /dev/null put netease/large",
            2,
            "dumbwaiter: the state folder /dev/null is no folder: name another one with --state\n",
        ),
    ],
)
def test_odd_streams_and_words_never_end_in_a_traceback(program: Program, line: str, code: int, said: str) -> None:
    program.write("large", b"x" * MIB)
    assert program("put", program.drop / "large").returncode == 0
    done = typed(program, f"{sys.executable} -m dumbwaiter {line}; exit ${{PIPESTATUS[0]}}", program.data / "drop")
    assert done.stderr == said
    assert done.returncode == code


def typed(program: Program, line: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Has a shell that stands in a folder run a line."""
    return subprocess.run(
        ["bash", "-c", line],
        env=program.environment | {"LC_ALL": "C"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("words", ["doctor --bundle FILE", "--config FILE init --force --app-key k --secret-env S"])
def test_a_file_that_cannot_be_written_whole_is_named_and_the_one_there_stays(program: Program, words: str) -> None:
    file = program.folder / "file"
    file.write_text("as it was")
    line = words.replace("FILE", str(file)) + (f" --watch {program.drop}" if "init" in words else "")
    done = typed(program, f"ulimit -f 0; {sys.executable} -m dumbwaiter {line}", program.folder)
    assert done.returncode == 1
    assert done.stderr == f"dumbwaiter: {file} cannot be written: File too large\n"
    assert [one.name for one in program.folder.iterdir() if "file" in one.name] == ["file"]
    assert "init" not in words or file.read_text() == "as it was"
    assert "init" in words or "ok    configuration: " in done.stdout


@pytest.mark.parametrize(
    "words",
    ["put a.txt", "check a.txt", "--config c.toml check", "--config /none init --app-key k --secret-env S --watch d"],
)
def test_a_folder_that_was_deleted_under_the_shell_is_said(program: Program, words: str) -> None:
    here = program.folder / "here"
    here.mkdir()
    done = typed(program, f"rmdir {here}; {sys.executable} -m dumbwaiter {words}", here)
    assert done.returncode == 2
    assert done.stderr == ("dumbwaiter: the folder that this was started in is not there any more: cd to another one\n")


def test_nobodys_modules_are_taken_from_the_folder_that_one_stands_in(program: Program) -> None:
    for name in ("argparse", "dumbwaiter_fs", "resource"):
        (program.folder / f"{name}.py").write_text("raise SystemExit('a module of somebody')")
    for words in (["umount", program.folder], ["doctor"]):
        words = [os.path.join(os.path.dirname(sys.executable), "dumbwaiter"), *map(str, words)]
        done = subprocess.run(
            words, cwd=program.folder, env=program.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode in {0, 1, 5}, done.stderr
        assert "a module of somebody" not in done.stdout + done.stderr


def test_a_state_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        os.chown(tmp_path, 4712, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(Failure, match=r"the state folder .* belongs to somebody else"):
        open_lock(places(None, str(tmp_path), None, None))


def test_no_core_of_a_command_is_written(program: Program) -> None:
    most = resource.getrlimit(resource.RLIMIT_CORE)[1]
    program.start("prlimit", f"--core={most}:{most}", sys.executable, "-m", "dumbwaiter")
    assert program.daemon is not None
    limits = Path(f"/proc/{program.daemon.pid}/limits").read_text()
    assert re.search(r"Max core file size +0 ", limits)
