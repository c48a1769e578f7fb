"""The page's door: who is let in, what may be asked there, and what the stream of events tells."""

import json
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import httpx
import pytest

from dead_disk import mirror_disk
from program import Program
from test_docs import ROOT

MARK = {"X-Dumbwaiter": "test"}
PIXEL = b"\x89PNG\r\n\x1a\n" + b"\0" * 64  # what it is, the first bytes say


@pytest.fixture
def port(program: Program) -> int:
    """A port that the page is configured for."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    program.config.write_text(f'{program.config.read_text()}\n[web]\nlisten = "127.0.0.1:{number}"\n')
    return number


@pytest.fixture
def ask(program: Program, port: int) -> Iterator[httpx.Client]:
    """A client of the page's API, and a daemon that serves it."""
    program.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
        yield client


@contextmanager
def following(client: httpx.Client, last: str = "") -> Iterator[Callable[[], tuple[str, str, Any]]]:
    """Yields a function that returns the next event: its id, its kind, its facts."""
    with client.stream("GET", "/api/events", headers={"Last-Event-ID": last} if last else {}) as answer:
        lines = answer.iter_lines()

        def following_event() -> tuple[str, str, Any]:
            fields: dict[str, str] = {}
            for line in lines:
                name, _, value = line.partition(": ")
                fields[name] = value
                if not line and "data" in fields:
                    return fields["id"], fields["event"], json.loads(fields["data"])
            raise AssertionError("the stream ended")

        yield following_event


STRANGERS = {
    "a name that was made to point here": {"Host": "attacker.example"},
    "a name that begins like an address": {"Host": "127.0.0.1.attacker.example:80"},
    "another site": {"Origin": "http://attacker.example"},
    "a page in a frame without a name": {"Origin": "null"},
    "another site's picture": {"Sec-Fetch-Site": "cross-site"},
}


def test_strangers_are_refused_whatever_they_ask(ask: httpx.Client) -> None:
    for who, headers in STRANGERS.items():
        assert ask.get("/api/status", headers=headers).status_code == 403, who
        assert ask.post("/api/pause", json={"name": ""}, headers=MARK | headers).status_code == 403, who
    assert ask.get("/api/status").json()["paused"] == []


def test_a_form_of_another_site_changes_nothing(ask: httpx.Client) -> None:
    refused = ask.post("/api/pause", content='{"name": ""}', headers={"Content-Type": "text/plain"})
    assert (refused.status_code, refused.json()["error"]) == (
        403,
        "what changes something carries the header x-dumbwaiter",
    )
    assert ask.options("/api/pause", headers={"Access-Control-Request-Headers": "x-dumbwaiter"}).status_code == 403
    assert "access-control-allow-origin" not in ask.get("/api/status").headers


def test_what_strangers_send_fills_no_log(ask: httpx.Client, port: int, program: Program) -> None:
    upgrade = {"Origin": "http://attacker.example", "Connection": "Upgrade", "Upgrade": "websocket"}
    assert ask.get("/api/events", headers=upgrade).status_code == 403
    with socket.create_connection(("127.0.0.1", port)) as caller:
        caller.sendall(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n")  # what opens an https:// address
        assert caller.recv(12) == b"HTTP/1.1 400"
    assert ask.get("/api/status").status_code == 200
    for line in map(json.loads, program.log.read_text().splitlines()):
        assert "HTTP" not in line["event"]
        assert "upgrade" not in line["event"]


def test_the_page_can_steer_and_nothing_else(ask: httpx.Client, port: int) -> None:
    for path in ("put", "claim", "sync"):
        assert ask.post(f"/api/{path}", json={}, headers=MARK).status_code == 404
    assert ask.get("/api/metrics").status_code == 404
    assert ask.get("/../config.toml").status_code == 404
    tunnel = {"Host": "localhost:9000", "Origin": "http://localhost:9000"}
    paused = ask.post("/api/pause", json={"name": "netease"}, headers=MARK | tunnel)
    assert paused.json()["paused"] == [{"name": "netease", "until": None}]


def test_the_manual_says_what_a_proxy_has_to_write_to_be_let_in(ask: httpx.Client) -> None:
    block = re.findall(r"```nginx\n(.*?)```", (ROOT / "docs/operating.md").read_text(), re.DOTALL)[0]
    assert "proxy_buffering off;" in block
    browser = {"Host": "page.example", "Origin": "https://page.example", "Sec-Fetch-Site": "same-origin"} | MARK
    proxy = browser | dict(re.findall(r"proxy_set_header (\S+) (\S+);", block))
    for path in ("/page.js", "/api/status"):
        assert ask.get(path, headers=browser).status_code == 403
        assert ask.get(path, headers=proxy).status_code == 200
    assert ask.post("/api/pause", json={"name": "netease"}, headers=proxy).status_code == 200


def test_every_answer_tells_the_browser_what_the_page_may_do(ask: httpx.Client) -> None:
    for path in ("/", "/page.js", "/api/status", "/nothing"):
        headers = ask.get(path).headers
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "set-cookie" not in headers


def test_with_a_token_nothing_is_told_without_it(program: Program, port: int) -> None:
    text = program.config.read_text()
    program.config.write_text(text + 'token = "open sesame, please"\nmetrics = true\n')
    program.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
        for wrong in ({}, {"Authorization": "Bearer open"}, {"Authorization": "Basic b3Blbg=="}):
            assert client.get("/api/status", headers=wrong).status_code == 401
            assert client.post("/api/pause", json={}, headers=MARK | wrong).status_code == 401
        known = {"Authorization": "Bearer open sesame, please"}
        assert client.get("/api/status", headers=known).json()["running"]
        assert "dumbwaiter_jobs" in client.get("/api/metrics", headers=known).text
        assert client.get("/").status_code == 200  # the page asks for the token
    assert "sesame" not in program.log.read_text()


def test_a_port_that_is_taken_does_not_stop_the_uploads(program: Program, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        program.start()
        program.write("a.bin", b"a")
        assert program("wait").returncode == 0
        said = json.loads(program("doctor", "--json").stdout)["checks"]
        (page,) = [one for one in said if one["check"] == "page"]
        assert page["level"] == "warn"
        assert page["says"] == f"not served at http://127.0.0.1:{port}/"
    assert "the page is not served" in program.log.read_text()


def test_who_never_ends_a_request_takes_no_room_of_the_owners(program: Program, port: int) -> None:
    program.start()
    head = b"POST /api/pause HTTP/1.1\r\nhost: 127.0.0.1\r\nx-dumbwaiter: 1\r\ncontent-length: 9\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(400):
            caller = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            with suppress(OSError):
                caller.sendall(head)
        assert program("status").returncode == 0
        assert program.daemon is not None
        assert len(os.listdir(f"/proc/{program.daemon.pid}/fd")) < 256 + 100
    assert "Traceback" not in program.log.read_text()


def test_events_tell_the_whole_way_of_a_file(ask: httpx.Client, program: Program) -> None:
    with following(ask) as following_event:
        _, kind, facts = following_event()
        assert (kind, facts["jobs"], facts["totals"]["done"]) == ("snapshot", [], 0)
        program("pause", "netease")
        program.write("film.mov", b"x" * (9 << 20))
        while kind != "job":
            _, kind, facts = following_event()
        assert facts["state"] == "pending"
        program("resume")
        acknowledged, last, ended, done = [0], "", False, 0
        while not (ended and done):  # the totals may be looked at a moment after the jobs, and told before
            last, kind, facts = following_event()
            acknowledged += [facts["sent"]] if kind in {"bytes", "job"} else []
            ended |= (kind, facts.get("state")) == ("job", "done")
            done = facts["totals"]["done"] if kind == "state" else done
        assert acknowledged == sorted(acknowledged)
        assert done == 1
    program.write("b.bin", b"b")
    with following(ask, last) as following_event:
        seen = []
        while ("job", "done") not in seen:
            _, kind, facts = following_event()
            seen.append((kind, facts["state"] if kind == "job" else ""))
    assert ("snapshot", "") not in seen
    with following(ask, "0-7") as following_event:
        assert following_event()[1] == "snapshot"


def test_events_tell_of_a_version_that_gave_way_to_a_newer_one(ask: httpx.Client, program: Program) -> None:
    with following(ask) as following_event:
        program("pause", "netease")
        told: list[tuple[str, int]] = []
        for content in (b"old", b"newer"):
            program.write("a.bin", content)
            while ("pending", len(content)) not in told:
                _, kind, facts = following_event()
                told += [(facts["state"], facts["size"])] if kind == "job" else []
        while ("superseded", 3) not in told:
            _, kind, facts = following_event()
            told += [(facts["state"], facts["size"])] if kind == "job" else []


def test_events_tell_of_what_is_ordered_and_end_with_the_daemon(ask: httpx.Client, program: Program) -> None:
    with following(ask) as following_event:
        following_event()
        program("pause", "xinhua", "--for", "2s")
        states: list[str] = []
        while states[-2:] != ["paused", "ready"]:
            _, kind, facts = following_event()
            if kind == "provider" and facts["name"] == "xinhua":
                states.append(facts["state"])
        assert program.stop() == 0
    assert "Traceback" not in program.log.read_text()


def test_history_comes_in_pages_and_pictures_from_here_or_from_the_provider(
    ask: httpx.Client, program: Program
) -> None:
    paths = [program.write(f"{number}.png", PIXEL + bytes([number])) for number in range(5)]
    assert program("wait").returncode == 0
    asked = len(program.vendors.log())
    first = ask.get("/api/history", params={"limit": 3}).json()
    rest = ask.get("/api/history", params={"limit": 3, "before": first["before"]}).json()
    entries = first["entries"] + rest["entries"]
    assert sorted(one["path"] for one in entries) == [path.name for path in paths]
    assert rest["before"] is None
    assert ask.get("/api/history", params={"before": "nonsense"}).status_code == 400
    assert len(program.vendors.log()) == asked
    newest = entries[0]
    local = ask.get(f"/api/thumbnail/{newest['id']}")
    assert (local.headers["content-type"], local.content[:72]) == ("image/png", PIXEL)
    assert len(program.vendors.log()) == asked
    (program.drop / newest["path"]).unlink()
    assert ask.get(f"/api/thumbnail/{newest['id']}").content == local.content
    for odd in ("9" * 4500, "one"):
        assert ask.get(f"/api/thumbnail/{odd}").status_code == 404
    assert len(program.vendors.log()) > asked


def test_a_link_comes_in_the_form_that_is_wanted(ask: httpx.Client, program: Program) -> None:
    program.write("a [1].txt", b"a")
    assert program("wait").returncode == 0
    (entry,) = ask.get("/api/history").json()["entries"]
    link = ask.post("/api/link", json={"id": entry["id"], "form": "markdown"}, headers=MARK).json()
    assert (link["url"], link["text"]) == (entry["url"], f"[a \\[1\\].txt]({entry['url']})")
    refused = ask.post("/api/link", json={"id": entry["id"], "form": "nonsense"}, headers=MARK)
    assert (refused.status_code, refused.json()["code"]) == (400, 2)


@pytest.mark.torture
def test_pictures_on_a_disk_that_hangs_come_from_the_provider(ask: httpx.Client, program: Program) -> None:
    nas, there = program.folder / "nas", program.folder / "there"
    nas.mkdir()
    there.mkdir()
    with mirror_disk(nas, there) as disk:
        contents = {str(nas / f"{number}.png"): PIXEL + bytes([number]) for number in range(4)}
        for path, content in contents.items():
            (there / os.path.basename(path)).write_bytes(content)
        assert program("put", "--provider", "netease", *contents).returncode == 0
        entries = ask.get("/api/history").json()["entries"]
        disk.send_signal(signal.SIGSTOP)
        with ThreadPoolExecutor(len(entries)) as visitors:
            shown = list(visitors.map(lambda one: ask.get(f"/api/thumbnail/{one['id']}").content, entries))
        assert shown == [contents[f"/{one['path']}"] for one in entries]
