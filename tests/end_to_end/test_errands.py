"""What a watch wants done once a file is at its provider: the file goes, somebody is told."""

import asyncio
import base64
import gc
import hashlib
import hmac
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import update

from dumbwaiter.config import Hook
from dumbwaiter.config.file import parse
from dumbwaiter.config.values import Duration, RequestUrl, SigningSecret
from dumbwaiter.errors import Failure, JournalTrouble, Undone
from dumbwaiter.files.ignore import PRIVATE
from dumbwaiter.files.version import digest_of
from dumbwaiter.jobs.endings import Endings
from dumbwaiter.jobs.errands import SLOTS, ErrandRunner
from dumbwaiter.jobs.hooks import Teller, Untold, signature
from dumbwaiter.model import Job, Receipt, Secret, Stamp, State
from dumbwaiter.pool import NO_THREAD, NoThread, Pool
from dumbwaiter.store.arrivals import Candidate
from dumbwaiter.store.errands import AFTER, ORIGINAL, TAKEN_AWAY, Order
from dumbwaiter.store.tables import jobs
from journals import HOST, WORKER, Book, in_file
from ledger import JPEG
from program import PATIENCE, Program, digest

CONFIG = '[provider.p]\nbroker = "netease"\napp_key = "k"\napp_secret = "s"\n[watch.w]\npath = "/w"\nprovider = "p"\n'


def rules(program: Program, text: str, watch: str = "recipe") -> Path:
    """Adds rules to a watch of the sandbox's configuration, and returns its folder."""
    config = program.config.read_text()
    place = config.index(f"[watch.{watch}]") + len(f"[watch.{watch}]\n")
    program.config.write_text(f"{config[:place]}{text}\n{config[place:]}")
    return program.data / "drop" / watch


def drop(program: Program, folder: Path, name: str, content: bytes) -> Path:
    aside = program.folder / "aside"
    aside.write_bytes(content)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    aside.rename(path)
    return path


@pytest.mark.parametrize("action", ["delete", "trash", "move"])
def test_a_file_goes_once_it_is_safe_and_its_entry_stays(program: Program, action: str) -> None:
    kept = program.folder / "kept"
    folder = rules(program, f'after = "{f"move:{kept}" if action == "move" else action}"')
    path = drop(program, folder, "a/film.mov", b"film")
    program.start(environment={"XDG_DATA_HOME": str(program.folder / "data")})
    program.until(lambda: not path.exists())
    program.until(lambda: program.totals()["done"] == 1)
    (entry,) = program.facts("ls", "recipe")
    assert program.vendors.http.get(entry["url"]).content == b"film"
    found = {"move": kept / "a/film.mov", "trash": program.folder / "data/Trash/files/film.mov"}
    if action in found:
        program.until(found[action].exists)
        assert found[action].read_bytes() == b"film"
    assert program("rescan").returncode == 0
    assert program("wait").returncode == 0
    assert [one["path"] for one in program.facts("ls", "recipe")] == ["a/film.mov"]
    program.until(lambda: list(folder.rglob(".dumbwaiter*")) == [])


def test_what_is_not_verified_stays_and_says_why() -> None:
    config = parse(f'{CONFIG}after = "delete"\n', "config.toml")
    nothing: Any = None
    endings = Endings(config, nothing, ordered=nothing)
    job = Job(1, "w", "film.mov", "p", Stamp(1, 1, 1, 1), State.STORED)
    plain, sure = Receipt("key"), Receipt("key", verified="md5")
    assert endings.of_done(job, plain) == []
    assert "kept" in endings.told(job, plain).facts["after"]
    assert [order.what for order in endings.of_done(job, sure)] == ["after"]
    assert endings.told(job, sure) == sure
    fresh = replace(job, created_at=time.time())
    assert [order.waits for order in endings.of_done(fresh, sure)] == [pytest.approx(10, abs=1)]
    assert [order.waits for one in (job, replace(fresh, by_hand=True)) for order in endings.of_done(one, sure)] == [
        0,
        0,
    ]


def test_a_download_that_breaks_off_and_goes_on_is_whole_in_the_end(program: Program) -> None:
    """As `wget` does it, which closes the file and opens it again seconds later."""
    folder = rules(program, 'after = "delete"')
    program.config.write_text(program.config.read_text().replace('settle = "200ms"', 'settle = "2s"'))
    program.start()
    path = folder / "film.mov"
    for number in range(3):
        with path.open("ab") as file:
            file.write(bytes([number]) * 1000)
        program.until(lambda number=number: program.totals()["done"] == number + 1)
    program.until(lambda: not path.exists())
    whole = b"".join(bytes([number]) * 1000 for number in range(3))
    (entry,) = program.facts("ls", "recipe")
    assert program.vendors.http.get(entry["url"]).content == whole


def test_a_stop_between_upload_and_disposal_changes_nothing(program: Program) -> None:
    """The errand is in the journal: the daemon is killed while the hook that comes before it runs."""
    started = program.folder / "started"
    script = f"import os, pathlib, time; pathlib.Path({str(started)!r}).write_text(str(os.getpid())); time.sleep(60)"
    hook = json.dumps([sys.executable, "-c", script])
    folder = rules(program, f'after = "delete"\non_done = {hook}')
    path = drop(program, folder, "film.mov", b"film")
    program.start()
    program.until(lambda: started.exists() and started.read_text() != "")
    program.kill()
    os.kill(int(started.read_text()), signal.SIGKILL)
    assert path.exists()
    program.config.write_text(program.config.read_text().replace(f"on_done = {hook}\n", ""))
    program.start()
    program.until(lambda: not path.exists())
    assert program("wait").returncode == 0


@pytest.mark.torture
@pytest.mark.parametrize("action", ["delete", "move:/dev/shm"])
def test_a_random_rewriter_and_kills_lose_no_version(program: Program, action: str) -> None:
    """T08: every version that stood still is at the remote, and no byte is gone that is not there."""
    target = Path(f"/dev/shm/dumbwaiter-test-{os.getpid()}")
    folder = rules(program, f'after = "{f"move:{target}" if action != "delete" else action}"', "careyshop-aliyun")
    numbers = random.Random(action)
    written = set()
    try:
        program.start()
        for round_ in range(60):
            content = numbers.randbytes(numbers.choice([1, 1000, 300_000]))
            name = f"{numbers.randrange(4)}.bin"
            if numbers.random() < 0.5:
                drop(program, folder, name, content)
            else:
                (folder / name).write_bytes(content)
            if numbers.random() < 0.3:
                program.until(lambda content=content: digest(content) in program.objects())
            if round_ % 20 == 19:
                program.kill()
                program.start()
            written.add(digest(content))
        assert program("wait").returncode == 0
        program.until(lambda: not list(folder.glob("*.bin")))
        here = {digest(path.read_bytes()) for path in target.rglob("*") if path.is_file()}
        assert set(program.objects()) <= written
        assert here <= set(program.objects())
    finally:
        shutil.rmtree(target, ignore_errors=True)


# Hooks


def test_a_program_is_told_with_arguments_and_environment(program: Program) -> None:
    out = program.folder / "out"
    script = "import json, os, sys; open(sys.argv[1], 'a').write(json.dumps([sys.argv[2:], dict(os.environ), os.getpgid(0) == os.getpid()]) + '\\n')"
    words = [sys.executable, "-c", script, str(out), "{path}", "{url}", "; rm -rf {name}", "{{}}"]
    folder = rules(program, f"on_done = {json.dumps(words)}")
    path = drop(program, folder, "$(touch x) 'film.mov", b"film")
    program.start()
    program.until(lambda: out.exists() and out.read_text().endswith("\n"))
    ((arguments, environment, leader),) = map(json.loads, out.read_text().splitlines())
    (entry,) = program.facts("ls", "recipe")
    assert arguments == [str(path), entry["url"], f"; rm -rf {path.name}", "{{}}"]
    assert environment["DUMBWAITER_EVENT"] == "done"
    assert environment["DUMBWAITER_KEY"] == entry["key"]
    assert environment["DUMBWAITER_PATH"] == str(path)
    assert environment["DUMBWAITER_ID"]
    assert leader


def test_a_program_gets_no_variable_that_holds_a_secret(program: Program) -> None:
    out = program.folder / "out"
    script = f"import json, os, pathlib; pathlib.Path({str(out)!r}).write_text(json.dumps(dict(os.environ)) + '\\n')"
    folder = rules(program, f"on_done = {json.dumps([sys.executable, '-c', script])}")
    rules(program, 'on_failed = { url = "http://127.0.0.1/", secret = { env = "HOOK_SECRET" } }', "xinhua")
    key = program.vendors.sandbox.accounts["presign"]["api_key"]
    program.config.write_text(program.config.read_text().replace(f'"{key}"', '{ env = "ACCOUNT_SECRET" }'))
    drop(program, folder, "film.mov", b"film")
    program.start(environment={"ACCOUNT_SECRET": key, "HOOK_SECRET": "whispered", "PGPASSWORD": "p", "PLAIN": "told"})
    program.until(lambda: out.exists() and out.read_text().endswith("\n"))
    environment = json.loads(out.read_text())
    assert environment["PLAIN"] == "told"
    assert {"ACCOUNT_SECRET", "HOOK_SECRET", "PGPASSWORD"}.isdisjoint(environment)


def test_history_knows_what_failed_of_a_file_however_much_failed_after_it(program: Program) -> None:
    folder = rules(program, 'on_done = ["false"]')
    drop(program, folder, "film.mov", b"film")
    program.start()
    program.until(lambda: [one["due_at"] for one in program.status()["errands"]] == [None])
    program.kill()
    program.multiply_jobs(1100)
    (entry,) = program.facts("history")
    assert entry["errand"] == "on_done: false ended with code 1"


def test_a_failing_program_is_told_in_status_and_history_and_tried_at_a_persons_word(program: Program) -> None:
    mark = program.folder / "mark"
    script = f"import os, sys; sys.exit(0 if os.path.exists({str(mark)!r}) else 'no sink for this')"
    folder = rules(program, f"on_done = {json.dumps([sys.executable, '-c', script])}")
    drop(program, folder, "film.mov", b"film")
    program.start()
    program.until(lambda: program.status()["errands"])
    assert program("wait").returncode == 0
    (errand,) = program.status()["errands"]
    assert errand["what"] == "on_done"
    assert "ended with code 1: no sink for this" in errand["error"]
    assert errand["due_at"] is None
    assert "! on_done of recipe/film.mov" in program("status").stdout
    (entry,) = program.facts("history")
    assert "no sink for this" in entry["errand"]
    assert "1 need a person" in program("doctor").stdout
    mark.touch()
    assert program("retry", str(errand["job"])).returncode == 0
    program.until(lambda: not program.status()["errands"])


def test_a_program_ends_with_its_time_and_all_that_it_started(tmp_path: Path) -> None:
    child = tmp_path / "child"
    script = (
        "import pathlib, subprocess, sys, time; sleep = subprocess.Popen(['sleep', '60']);"
        "pathlib.Path(sys.argv[1]).write_text(str(sleep.pid)); time.sleep(60)"
    )
    hook = Hook(command=[sys.executable, "-c", script, str(child)], timeout=Duration(2))

    async def run() -> None:
        nothing: Any = None
        with pytest.raises(Untold, match="took longer than 2 seconds"):
            await Teller(nothing, ()).tell(hook, {"path": "p"}, "1", 0.0)

    asyncio.run(run())
    # The kernel may need a moment to end what was killed.
    with suppress(FileNotFoundError, ProcessLookupError), Path(f"/proc/{child.read_text()}/stat").open() as status:
        deadline = time.monotonic() + 10
        while status.read().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < deadline
            time.sleep(0.01)
            status.seek(0)


def test_what_ignores_the_end_of_a_program_ends_too(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    there = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    stubborn = "trap '' TERM; exec 3>\"$1\"; echo >&3; sleep 60; sleep 60"
    hook = Hook(["sh", "-c", f"({stubborn}) & sleep 60", "sh", str(pipe)], timeout=Duration(1))

    async def run() -> None:
        nothing: Any = None
        with pytest.raises(Untold, match="took longer than 1 seconds"):
            await Teller(nothing, ()).tell(hook, {}, "1", 0.0)

    asyncio.run(run())
    gc.collect()
    assert "Exception ignored" not in capfd.readouterr().err
    try:
        assert os.read(there, 10) == b"\n"
        deadline = time.monotonic() + 10
        while select.select([there], [], [], 0.1)[0] == []:  # it is open as long as the child lives
            assert time.monotonic() < deadline
        assert os.read(there, 10) == b""
    finally:
        os.close(there)


@pytest.mark.parametrize("code", [0, 1])
def test_a_program_may_leave_another_one_behind(tmp_path: Path, code: int, capfd: pytest.CaptureFixture[str]) -> None:
    left = tmp_path / "left"
    hook = Hook(["sh", "-c", f'sleep 60 & echo $! >"$1"; exit {code}', "sh", str(left)], timeout=Duration(30))

    async def run() -> None:
        nothing: Any = None
        with pytest.raises(Untold, match="ended with code 1") if code else nullcontext():
            await Teller(nothing, ()).tell(hook, {}, "1", 0.0)

    began = time.monotonic()
    asyncio.run(run())
    os.kill(int(left.read_text()), signal.SIGKILL)
    assert time.monotonic() - began < 15
    gc.collect()
    assert "Exception ignored" not in capfd.readouterr().err


class Sink:
    """Takes webhooks; answers 500 so often, then 204."""

    def __init__(self, failures: int) -> None:
        self.taken: list[tuple[dict[str, str], bytes]] = []
        self.left = failures
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                sink.paths.append(self.path)
                sink.taken.append(({name.lower(): value for name, value in self.headers.items()}, body))
                sink.left -= 1
                self.send_response(500 if sink.left >= 0 else 204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.paths: list[str] = []
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?key=1"


@contextmanager
def sink(failures: int = 0) -> Iterator[Sink]:
    made = Sink(failures)
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        thread.join()
        made.server.server_close()


def test_a_webhook_is_signed_and_repeated_through_a_restart_under_one_id(program: Program) -> None:
    with sink(failures=2) as there:
        folder = rules(program, f'on_done = {{ url = "{there.url}", secret = {{ env = "HOOK_SECRET" }} }}')
        drop(program, folder, "film.mov", b"film")
        program.start(environment={"HOOK_SECRET": "whispered"})
        program.until(lambda: there.taken)
        program.kill()
        program.start(environment={"HOOK_SECRET": "whispered"})
        program.until(lambda: len(there.taken) >= 3)
        program.until(lambda: not program.status()["errands"])
        assert set(there.paths) == {"/hook?key=1"}
        headers, body = there.taken[-1]
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        digest_ = base64.b64encode(hmac.digest(b"whispered", signed, hashlib.sha256)).decode()
        assert headers["webhook-signature"] == f"v1,{digest_}"
        assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
        assert len({one["webhook-id"] for one, _ in there.taken}) == 1
        assert len({content for _, content in there.taken}) == 1
        told = json.loads(body)
        (entry,) = program.facts("ls", "recipe")
        assert {told[name] for name in ("event", "key", "url", "watch")} == {
            "done",
            entry["key"],
            entry["url"],
            "recipe",
        }
        assert program.stop() == 0
        assert all(b"whispered" not in path.read_bytes() for path in program.state.rglob("*") if path.is_file())
        assert "whispered" not in program.log.read_text()


def test_a_signature_is_the_one_of_the_specification() -> None:
    """The example of docs.svix.com, "Verifying webhooks manually"; base64 needs no padding."""
    id_, seconds, body = "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}'
    known = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signature(Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), id_, seconds, body) == known
    padded, bare, plain = (
        signature(Secret(text), id_, seconds, body) for text in ("whsec_c2VjcmV0MQ==", "whsec_c2VjcmV0MQ", "secret1")
    )
    assert padded == bare == plain


@pytest.mark.parametrize("text", ["whsec_c2VjcmV0MQ c2Vj", "whsec_c2Vjc", "whsec_秘密"])
def test_a_secret_that_cannot_sign_says_so_where_it_is_read(text: str) -> None:
    config = parse(f'{CONFIG}on_done = {{ url = "https://a.example/", secret = "{text}" }}\n', "config.toml")
    ((whose, source),) = [one for one in config.secrets() if "on_done" in one[0]]
    with pytest.raises(
        Failure, match=r'config.toml, line 8: \[watch.w.on_done.secret\] what follows "whsec_" is no'
    ) as one:
        source.read()
    assert whose == "watch w's on_done"
    assert text not in str(one.value)


def test_a_secret_that_does_not_come_holds_up_nothing_and_keeps_one_thread(tmp_path: Path) -> None:
    pipe = tmp_path / "secret"
    os.mkfifo(pipe, 0o600)  # whoever opens it waits for one who writes
    hook = Hook(url=RequestUrl("http://a.example/"), secret=SigningSecret("file", str(pipe)), timeout=Duration(0.1))
    last = threading.Timer(10, pipe.write_text, ("late",))
    last.daemon = True
    last.start()

    async def run() -> None:
        nothing: Any = None
        teller = Teller(nothing, ())
        before = threading.active_count()
        for _ in range(3):
            with pytest.raises(Untold, match="the secret of the webhook did not come within"):
                await teller.tell(hook, {}, "1", 0.0)
        assert threading.active_count() == before + 1
        await asyncio.to_thread(pipe.write_text, "whsec_!")
        with pytest.raises(Untold, match="no base64"):
            await Teller(nothing, ()).tell(Hook(url=hook.url, secret=SigningSecret("literal", "whsec_!")), {}, "1", 0.0)

    asyncio.run(run())
    last.cancel()


def test_each_event_has_an_id_of_its_own(program: Program) -> None:
    with sink() as there:
        folder = rules(program, f'on_done = {{ url = "{there.url}", secret = "plain" }}')
        program.start()
        for name in ("a.mov", "b.mov"):  # one after the other: the row of the first is gone by then
            count = len(there.taken)
            drop(program, folder, name, b"film")
            program.until(lambda count=count: len(there.taken) > count)
            program.until(lambda: not program.status()["errands"])
        assert len({headers["webhook-id"] for headers, _ in there.taken}) == 2


def test_who_is_told_of_refusals_and_of_a_refused_account(program: Program) -> None:
    with sink() as there:
        hook = f'{{ url = "{there.url}", secret = "plain" }}'
        rules(program, f"on_failed = {hook}", "xinhua")
        folder = rules(program, f"on_attention = {hook}")
        drop(program, program.data / "drop/xinhua", "no-picture.jpg", b"")
        key = program.vendors.sandbox.accounts["presign"]["api_key"]
        program.config.write_text(program.config.read_text().replace(f'"{key}"', '"presign-key-wrong"'))
        drop(program, folder, "a.mov", b"a")
        drop(program, folder, "b.mov", b"b")
        program.start()
        program.until(lambda: len(there.taken) >= 2)
        told = {one["event"]: one for one in (json.loads(body) for _, body in there.taken)}
        assert told["failed"]["path"].endswith("/xinhua/no-picture.jpg")
        assert "bytes" in told["failed"]["error"]
        assert "refuses the account" in told["attention"]["error"]
        assert told["attention"]["path"] == str(folder)
        program.until(lambda: not program.status()["errands"])
        assert len(there.taken) == 2


HASTY = """
import dumbwaiter.app, dumbwaiter.providers.refresh_ahead
dumbwaiter.app.REFRESH, dumbwaiter.providers.refresh_ahead.RENEW = 1.0, 1e-9
from dumbwaiter.cli import main
main()
"""


def test_of_a_refused_account_its_own_watches_are_told(tmp_path: Path) -> None:
    other = CONFIG.replace("provider.p]", "provider.q]").replace("watch.w]", "watch.v]").replace('"p"', '"q"')
    hook = 'on_attention = ["true"]\n'
    config, ordered = parse(CONFIG + hook + other.replace("/w", "/v") + hook, "config.toml"), []
    with Book(in_file(tmp_path / "state")) as book:
        endings = Endings(config, book.journal, ordered=lambda: ordered.append(1))
        book.runner.run(endings.attention("p", "it is refused"))
        assert [(row.watch, row.what) for row in book.rows("SELECT watch, what FROM errands")] == [
            ("w", "on_attention")
        ]
        book.runner.run(endings.attention("none", "it is refused"))
    assert ordered == [1]


def test_a_refusal_that_the_renewal_of_a_session_meets_first_is_told(program: Program) -> None:
    """The daemon renews sessions far ahead of their end; this one does so all the time."""
    mark = program.folder / "mark"
    rules(program, f'on_attention = ["touch", "{mark}"]', "xinhua")
    program.drop = program.data / "drop/xinhua"
    program.start(sys.executable, "-c", HASTY)
    program.write("a.jpg", JPEG[0] + JPEG[1])
    program.until(lambda: program.totals()["done"] == 1)
    program.vendors.faults("xinhua.jwt:401")
    program.until(mark.exists)


DELETE = Order(AFTER, {"action": "delete"})


def done(book: Book, path: Path, content: bytes, orders: Sequence[Order] = (DELETE,)) -> int:
    """Writes a file of the watch that its folder is named for, and notes that it was uploaded and is to be deleted."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    stamp = Stamp.of(path.stat())
    (id_,) = book.enqueue([Candidate(path.parent.name, path.name, "p", stamp)], 0.0)
    book.claim(WORKER, 0.0, 1)
    receipt, digest_ = Receipt(f"key of {id_}"), digest_of(str(path.parent), path.name, stamp)
    book.lease(WORKER, id_).name(0.0, key=receipt.key, grant=None)
    book.lease(WORKER, id_).store(0.0, receipt=receipt, digest=digest_, more=4, resent=0)
    book.lease(WORKER, id_).finish(0.0, receipt=receipt, orders=orders)
    return id_


def drained(book: Book, folder: Path, away: Sequence[str] = (), action: str = "delete") -> None:
    """Does what is to be done for the files of a folder, which is `away` if that says why."""
    config = parse(CONFIG.replace("/w", str(folder)) + f'after = "{action}"\n', "config.toml")

    async def run() -> None:
        nothing: Any = None
        errands = ErrandRunner(
            config,
            book.journal,
            nothing,
            wake_at=print,
            sighted=print,
            moved=lambda: None,
            away=lambda _watch: "".join(away),
        )
        await errands.drain()
        await errands.close()

    book.runner.run(run())


def test_what_is_to_be_done_to_a_file_waits_for_its_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dumbwaiter.jobs.errands.TRIES", 1)
    path = tmp_path / "w/film.mov"
    with Book(in_file(tmp_path / "state")) as book:
        done(book, path, b"film")
        (tmp_path / "w").rename(tmp_path / "disk")
        drained(book, tmp_path / "w", ["the folder is away"])
        (errand,) = book.rows("SELECT * FROM errands")
        assert (errand.error, errand.due_at is None) == ("the folder is away", False)
        (tmp_path / "disk").rename(tmp_path / "w")
        book.make_due(errand.watch, time.time())
        drained(book, tmp_path / "w")
        assert not path.exists()
        assert book.rows("SELECT * FROM errands") == []


def test_what_is_done_to_a_file_is_what_the_configuration_says_by_then(tmp_path: Path) -> None:
    path, kept = tmp_path / "w/film.mov", tmp_path / "kept"
    with Book(in_file(tmp_path / "state")) as book:
        for action, left in (("keep", path), (f"move:{kept}", kept / "film.mov")):
            job = done(book, path, action.encode())
            if action == "keep":  # a kill left it under its private name
                (errand,) = book.rows("SELECT * FROM errands")
                private = f"{PRIVATE}{HOST}-{errand.id}-{int(errand.created_at * 1e6):x}"
                path.rename(path.with_name(private))
            drained(book, tmp_path / "w", action=action)
            assert left.read_bytes() == action.encode()
            assert (book.row(job).inode == TAKEN_AWAY) is (action != "keep")
            assert not any(ORIGINAL in entry.facts for entry in book.catalog.history())  # it is not deleted
            assert book.rows("SELECT * FROM errands") == []
            assert [one.name for one in (tmp_path / "w").iterdir()] == (["film.mov"] if action == "keep" else [])


def test_what_is_to_be_done_waits_for_a_disk_that_goes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away: list[str] = []

    def goes(*_: Any, **__: Any) -> bool:
        away.append("the folder is away")
        return False

    monkeypatch.setattr("dumbwaiter.jobs.errands.dispose", goes)
    with Book(in_file(tmp_path / "state")) as book:
        done(book, tmp_path / "w/film.mov", b"film")
        drained(book, tmp_path / "w", away)
        (errand,) = book.rows("SELECT * FROM errands")
        assert (errand.error, errand.due_at is None) == ("the folder is away", False)


def test_no_file_goes_that_the_journal_would_not_know_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Book(in_file(tmp_path / "state")) as book:
        done(book, tmp_path / "w/film.mov", b"film")
        monkeypatch.setattr(book.journal, "out_of_place", lambda: True)
        drained(book, tmp_path / "w")
        assert (tmp_path / "w/film.mov").exists()
        (errand,) = book.rows("SELECT * FROM errands")
        assert errand.error.startswith("the journal was removed or moved")


def test_what_is_to_be_done_waits_for_a_watch_that_is_not_configured_now(tmp_path: Path) -> None:
    """Its file may stand under its private name."""
    with Book(in_file(tmp_path / "state")) as book:
        done(book, tmp_path / "v/film.mov", b"film")
        drained(book, tmp_path / "w")
        (errand,) = book.rows("SELECT * FROM errands")
        assert (errand.error, errand.due_at is None) == ('no watch named "v" is configured', False)


def test_a_file_that_was_changed_once_it_was_uploaded_is_seen_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "w/film.mov"
    with Book(in_file(tmp_path / "state")) as book:
        done(book, path, b"film")
        path.write_bytes(b"another")
        drained(book, tmp_path / "w")
        assert path.read_bytes() == b"another"
        assert book.rows("SELECT * FROM errands") == []
        assert "w film.mov" in capsys.readouterr().out.splitlines()  # `drained` prints what is sighted


def test_where_the_system_has_no_thread_to_give_a_file_goes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> Any:
        raise NoThread

    monkeypatch.setattr("dumbwaiter.jobs.errands.TRIES", 1)
    monkeypatch.setattr(Pool, "submit", refused)
    with Book(in_file(tmp_path / "state")) as book:
        done(book, tmp_path / "w/film.mov", b"film")
        drained(book, tmp_path / "w")
        (errand,) = book.rows("SELECT * FROM errands")
        assert (errand.error, errand.due_at is None) == (NO_THREAD, False)


def test_a_file_goes_to_the_disk_that_those_before_it_went_to_and_not_to_the_folder_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    with Book(in_file(tmp_path / "state")) as book:
        monkeypatch.setattr("dumbwaiter.jobs.errands.mounted_at", lambda _target: str(kept))
        done(book, tmp_path / "w/one.mov", b"one")
        drained(book, tmp_path / "w", action=f"move:{kept}/films")
        assert (kept / "films/one.mov").read_bytes() == b"one"
        done(book, tmp_path / "w/two.mov", b"two")
        drained(book, tmp_path / "w", action=f"move:{kept}/films")  # by now nothing is mounted there
        (errand,) = book.rows("SELECT * FROM errands")
        assert errand.error.startswith(f"nothing is mounted at {kept}; mount it, or say that")
        assert (tmp_path / "w/two.mov").exists()
        book.make_due(None, time.time())
        drained(book, tmp_path / "w", action=f"move:{kept}-2/films")  # which is no folder of that disk
        assert (tmp_path / "kept-2/films/two.mov").read_bytes() == b"two"


def until_there(path: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_end_of_one_that_was_forgotten_ends_no_other(tmp_path: Path) -> None:
    """SQLite gives its number to the next."""
    path, began, ends = tmp_path / "w/film.mov", tmp_path / "began", tmp_path / "ends"
    script = f"touch {began}; until [ -e {ends} ]; do sleep 0.02; done"
    text = (
        CONFIG.replace("/w", str(tmp_path / "w")) + f'after = "delete"\non_done = {json.dumps(["sh", "-c", script])}\n'
    )
    with Book(in_file(tmp_path / "state")) as book:
        first = done(book, tmp_path / "w/first.mov", b"first", [Order("on_done", {})])

        async def run() -> None:
            nothing: Any = None
            config = parse(text, "config.toml")
            errands = ErrandRunner(config, book.journal, nothing, wake_at=print, sighted=print, moved=lambda: None)
            errands.kick()
            await asyncio.to_thread(until_there, began)
            await book.journal.queue.forget([first], time.time())
            await asyncio.to_thread(second)
            ends.touch()
            await errands.drain()
            await errands.close()

        def second() -> None:
            with Book(in_file(tmp_path / "state")) as other:
                done(other, path, b"film")
                (errand,) = other.rows("SELECT id, what FROM errands")
                assert errand == (1, "after")

        book.runner.run(run())
        assert not path.exists()
        assert book.rows("SELECT * FROM errands") == []


def test_the_same_file_dropped_again_goes_as_the_first_one_did(program: Program) -> None:
    folder = rules(program, 'after = "delete"')
    source = program.folder / "film.mov"
    source.write_bytes(b"film")
    os.utime(source, (1.7e9, 1.7e9))
    program.start()
    for count in range(1, 4):
        for lost in (program.data / "objects").rglob("*.mov"):
            lost.unlink()  # what comes again may be the last copy
        shutil.copy2(source, folder / "film.mov")
        program.until(lambda: not (folder / "film.mov").exists())
        assert program("wait").returncode == 0
        assert program("verify", "recipe").returncode == 0
        assert program.totals()["done"] == count
    assert program.stop() == 0
    text = program.config.read_text()
    program.config.write_text(text.replace('after = "delete"', 'after = "keep"'))
    program.start()
    shutil.copy2(source, folder / "film.mov")
    assert program("wait").returncode == 0
    assert (folder / "film.mov").exists()


def test_files_that_hang_keep_no_other_watch_waiting(tmp_path: Path) -> None:
    told, hung, answers = tmp_path / "told", threading.Event(), threading.Event()
    text = CONFIG.replace("/w", str(tmp_path / "w")) + (
        f'after = "delete"\n[watch.v]\npath = "{tmp_path}/v"\nprovider = "p"\nafter = "delete"\n'
        f'on_done = ["touch", "{told}"]\n'
    )

    def away(watch: str) -> str:
        if watch == "w":
            hung.set()
            assert answers.wait(30)
        return ""

    with Book(in_file(tmp_path / "state")) as book:
        for number in range(2 * SLOTS):
            done(book, tmp_path / f"w/{number}.mov", b"film %d" % number)
        done(book, tmp_path / "v/film.mov", b"film", [Order("on_done", {}), DELETE])

        async def run() -> None:
            nothing: Any = None
            ended, config = asyncio.Semaphore(0), parse(text, "config.toml")
            errands = ErrandRunner(
                config, book.journal, nothing, wake_at=print, sighted=print, moved=ended.release, away=away
            )
            errands.kick()
            async with asyncio.timeout(10):
                for _ in range(2):  # the hook, the file
                    await ended.acquire()
            assert told.exists()
            assert not (tmp_path / "v/film.mov").exists()
            assert hung.is_set()
            assert len(list((tmp_path / "w").iterdir())) == 2 * SLOTS
            answers.set()
            await errands.drain()
            await errands.close()

        book.runner.run(run())
        assert list((tmp_path / "w").iterdir()) == []
        assert book.rows("SELECT * FROM errands") == []


def test_a_stop_waits_for_no_disk_that_hangs(tmp_path: Path) -> None:
    begun, answers = threading.Event(), threading.Event()
    answered: list[bool] = []

    def away(_watch: str) -> str:
        begun.set()
        answered.append(answers.wait(PATIENCE))
        return "the folder is away"

    async def run() -> None:
        nothing: Any = None
        config = parse(CONFIG, "config.toml")
        errands = ErrandRunner(
            config, book.journal, nothing, wake_at=print, sighted=print, moved=lambda: None, away=away
        )
        errands.kick()
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        await errands.close()
        assert answered == []
        answers.set()

    with Book(in_file(tmp_path / "state")) as book:
        done(book, tmp_path / "w/film.mov", b"film")
        book.runner.run(run())
        assert len(book.rows("SELECT * FROM errands")) == 1


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_file_that_a_person_named_is_whole_without_its_writers_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_hand: bool
) -> None:
    told: list[bool] = []

    def disposed(*_: Any, closed: bool, **__: Any) -> bool:
        told.append(closed)
        return True

    monkeypatch.setattr("dumbwaiter.jobs.errands.dispose", disposed)
    with Book(in_file(tmp_path / "state")) as book:
        done(book, tmp_path / "w/film.mov", b"film")
        book.run(lambda connection: connection.execute(update(jobs).values(by_hand=by_hand)) and None)
        drained(book, tmp_path / "w")
    assert told == [by_hand]


def test_a_journal_in_trouble_for_a_moment_ends_no_errand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dumbwaiter.jobs.errands.AGAIN", 0.01)
    path = tmp_path / "w/film.mov"
    with Book(in_file(tmp_path / "state")) as book:
        done(book, path, b"film")
        ended, locked = book.journal.ended, [JournalTrouble("database is locked")]

        async def once(ids: Any) -> Any:
            if locked:
                raise locked.pop()
            return await ended(ids)

        monkeypatch.setattr(book.journal, "ended", once)
        drained(book, path.parent)
        assert not locked
        assert not path.exists()
        assert book.rows("SELECT * FROM errands") == []


def test_a_journal_that_could_not_say_what_is_due_is_asked_again_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wakes: list[float] = []

    async def locked(*_: Any) -> Any:
        raise JournalTrouble("database is locked")

    with Book(in_file(tmp_path / "state")) as book:
        done(book, tmp_path / "w/film.mov", b"film")
        monkeypatch.setattr(book.journal.errands, "due", locked)

        async def run() -> None:
            config, nothing = parse(CONFIG, "config.toml"), None
            errands = ErrandRunner(
                config,
                book.journal,
                nothing,
                wake_at=wakes.append,
                sighted=print,
                moved=lambda: None,  # type: ignore[arg-type]
            )
            await errands.drain()
            await errands.close()

        book.runner.run(run())
    assert [when > time.time() for when in wakes] == [True]


@pytest.mark.parametrize(("code", "again"), [(75, True), (1, False)])
def test_a_program_that_asks_for_another_try_gets_one(tmp_path: Path, code: int, again: bool) -> None:
    hook = f'on_done = ["sh", "-c", "exit {code}"]\n'
    with Book(in_file(tmp_path / "state")) as book:
        done(book, tmp_path / "w/film.mov", b"film", [Order("on_done", {})])

        async def run() -> None:
            nothing: Any = None
            config = parse(CONFIG.replace("/w", str(tmp_path / "w")) + hook, "config.toml")
            errands = ErrandRunner(config, book.journal, nothing, wake_at=print, sighted=print, moved=lambda: None)
            await errands.drain()
            await errands.close()

        book.runner.run(run())
        (errand,) = book.rows("SELECT * FROM errands")
        assert f"ended with code {code}" in errand.error
        assert (errand.due_at is not None) is again


def test_an_errand_is_tried_again_when_that_may_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_yet(*_: Any, **__: Any) -> bool:
        raise Undone("it was written lately", after=500.0)

    monkeypatch.setattr("dumbwaiter.jobs.errands.dispose", not_yet)
    with Book(in_file(tmp_path / "state")) as book:
        done(book, tmp_path / "w/film.mov", b"film")
        began = time.time()
        drained(book, tmp_path / "w")
        (errand,) = book.rows("SELECT * FROM errands")
        assert began + 500 <= errand.due_at <= time.time() + 500


def test_an_errand_takes_no_file_that_another_one_left_under_its_private_name(tmp_path: Path) -> None:
    """A kill left it there, its job was forgotten, and the database gives the errand's number to the next one."""
    first, second = tmp_path / "w/first", tmp_path / "w/second"
    with Book(in_file(tmp_path / "state")) as book:
        id_ = done(book, first, b"first content")
        (row,) = book.rows("SELECT id FROM errands")
        private = first.rename(first.with_name(f"{PRIVATE}{HOST}-{row.id}"))
        book.forget([id_], 0.0)
        done(book, second, b"second")
        drained(book, second.parent)
    assert list(second.parent.iterdir()) == [private]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('on_done = "notify-send done"', "no line for a shell"),
        ('on_done = ["say", "{pth}"]', 'unknown blank {pth}; did you mean "path"?'),
        ("on_done = []", "a hook is either"),
        ('on_done = { url = "https://a.example/" }', "give it a secret"),
        ('on_done = { url = "https://a.example/", secert = "s" }', 'did you mean "secret"?'),
        ('after = "remove"', 'allowed: "keep", "trash", "delete", "move:DIR"'),
        ('after = "move:kept"', "the whole path"),
        ('after = "move:/w/kept"', "would be uploaded again"),
        ('window = "7pm"', "is no window"),
        ('on_conflict = "overwrite"', "allowed"),
    ],
)
def test_what_makes_no_sense_is_refused_with_line_and_key(line: str, says: str) -> None:
    with pytest.raises(Failure) as failure:
        parse(f"{CONFIG}{line}\n", "config.toml")
    assert says.lower() in str(failure.value).lower(), str(failure.value)
    assert f"config.toml, line 8: [watch.w.{line.split()[0]}" in str(failure.value)


# The desktop

SERVER = """
import json, sys
from jeepney import DBusAddress, MessageType, new_method_call, new_method_return
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import open_dbus_connection
bus = open_dbus_connection()
bus.send_and_get_reply(message_bus.RequestName("org.freedesktop.Notifications"))
print("ready", flush=True)
while True:
    message = bus.receive()
    if message.header.message_type is MessageType.method_call:
        print(json.dumps(message.body[:5]), flush=True)
        bus.send(new_method_return(message, "u", (1,)))
"""


@pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="there is no dbus-daemon here")
def test_a_burst_of_files_is_one_notice(program: Program) -> None:
    bus = subprocess.Popen(
        ["dbus-daemon", "--session", "--nofork", "--print-address"], stdout=subprocess.PIPE, text=True
    )
    assert bus.stdout is not None
    address = {"DBUS_SESSION_BUS_ADDRESS": bus.stdout.readline().strip()}
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True, env=os.environ | address
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        with program.config.open("a") as file:
            file.write("[notify]\ndesktop = true\n")
        for number in range(20):
            program.write(f"{number} <b>&amp;.mov", os.urandom(10))
        program.start(environment=address)
        notice = json.loads(server.stdout.readline())
        assert notice[0] == "dumbwaiter"
        assert notice[3] == "dumbwaiter: 20 uploaded"
        assert " &lt;b&gt;&amp;amp;.mov" in notice[4]
    finally:
        for process in (server, bus):
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
