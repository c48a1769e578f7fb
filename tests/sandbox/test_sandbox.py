import asyncio
import email.utils
import gc
import os
import signal
import socket
import stat
import subprocess
import sys
import tomllib

import httpx
import pytest

from dumbwaiter_sandbox import Sandbox, config

PROGRAM = """
import asyncio, sys
from dumbwaiter_sandbox import serve
seconds = float(sys.argv[2]) if sys.argv[2] else None
asyncio.run(serve(0, sys.argv[1], "latency=1ms", seconds, lambda line: print(line, flush=True)))
"""


def test_the_ready_line_names_the_port_and_the_config(running):
    sandbox = running.sandbox
    assert running.lines[0] == f"ready http://127.0.0.1:{sandbox.port} config={sandbox.data}/config.toml"
    ports = [int(url.rpartition(":")[2]) for url in sandbox.urls.values()]
    assert list(sandbox.urls)[:6] == ["sandbox", "vod", "lbs", "nos1", "nos2", "cdn"]
    assert ports == list(range(sandbox.port, sandbox.port + len(ports)))


def test_the_config_is_complete_and_private(running):
    path = running.sandbox.config_path
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with open(path, "rb") as file:
        written = tomllib.load(file)
    data = running.sandbox.data
    assert written["provider"]["netease"] == {
        "broker": "netease",
        "app_key": running.account["app_key"],
        "app_secret": running.account["app_secret"],
        "api": running.urls["vod"],
        "lbs": running.urls["lbs"],
        "cdn": running.urls["cdn"] + "/{bucket}",
    }
    assert written["watch"] == {
        name: {"path": f"{data}/drop/{name}", "provider": name, "settle": "200ms"} for name in written["provider"]
    }
    assert written["mount"] == {"path": f"{data}/mount"}
    assert os.path.isdir(f"{data}/drop/netease")
    assert os.path.isdir(f"{data}/mount")


def test_a_path_is_quoted_in_the_config(running):
    text = config('/odd "path"\n测试', {})
    assert tomllib.loads(text)["mount"]["path"] == '/odd "path"\n测试/mount'


def test_a_second_start_serves_on_the_same_port(start):
    first = start()
    port = first.sandbox.port
    first.stop()
    assert start(port=port).sandbox.port == port


def test_a_taken_port_is_named(start, tmp_path):
    port = start().sandbox.port
    with pytest.raises(OSError, match=f"port {port} on 127.0.0.1"):
        start(tmp_path / "other", port=port)


def test_wrong_faults_and_switches_are_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match="explode"):
        Sandbox(tmp_path, faults="nos.put:explode")
    with pytest.raises(ValueError, match="no switch 'keep'"):
        Sandbox(tmp_path, options={"netease": {"keep": True}})


def test_faults_and_switches_of_the_start_count(start):
    running = start(faults="nos.put:403@1", options={"netease": {"final_context": "null"}})
    assert running.put(running.grant("o"), b"x", complete=True).status_code == 403
    assert running.put(running.grant("o"), b"x", complete=True).json()["context"] == "null"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/faults", "nos.put:explode"),
        ("PUT", "/options", '{"netease": {"keep": 1}}'),
        ("PUT", "/options", '{"netease": {"md5_mode": "sometimes"}}'),
        ("PUT", "/options", '{"netease": {"rate": "fast"}}'),
        ("PUT", "/options", '{"other": {}}'),
        ("PUT", "/options", '{"netease": 1}'),
        ("PUT", "/options", "[]"),
        ("PUT", "/options", "{"),
        ("POST", "/clock", "{}"),
        ("POST", "/clock", '{"shift": true}'),
        ("POST", "/clock", '{"shift": 1e400}'),
        ("POST", "/clock", '{"advance": -1e11}'),
        ("POST", "/clock", '{"shift": 1, "advance": 1}'),
    ],
)
def test_a_wrong_control_request_changes_nothing(running, method, path, body):
    before = running.control("GET", "/options").json(), running.control("GET", "/faults").json()
    reply = running.control(method, path, content=body)
    assert reply.status_code == 400
    assert reply.json()["error"]
    assert (running.control("GET", "/options").json(), running.control("GET", "/faults").json()) == before


def test_switches_can_be_read_and_put_back(running):
    before = running.control("GET", "/options").json()
    running.options(max_accept=5, node_order=["nos2"], keep_partial=True)
    assert running.control("GET", "/options").json()["netease"]["node_order"] == ["nos2"]
    assert running.control("DELETE", "/options").json() == before


def test_faults_can_be_taken_back(running):
    running.faults("nos.put:500")
    assert running.control("DELETE", "/faults").json() == {"faults": ""}
    assert running.put(running.grant("o"), b"x", complete=True).status_code == 200


def test_the_clock_shifts_and_advances_and_dates_replies(running):
    running.control("POST", "/clock", json={"shift": 1000})
    assert running.control("POST", "/clock", json={"advance": -400.5}).json()["shift"] == 599.5
    date = running.http.get(running.urls["lbs"] + "/lbs").headers["date"]
    assert abs(email.utils.parsedate_to_datetime(date).timestamp() - running.now()) < 5


def test_the_log_can_be_emptied(running):
    running.put(running.grant("o"), b"x", complete=True)
    assert [entry["call"] for entry in running.log()] == ["put"]
    running.control("DELETE", "/log")
    assert running.log() == []


def test_what_it_did_is_said(running):
    grant = running.grant("o")
    running.put(grant, b"abc", complete=True)
    assert running.log()  # a turn of the sandbox's loop, so that it has spoken
    assert running.lines[-1] == "nos1 put /voddumb01/o offset=0 received=3 -> 200"


def test_about(running):
    assert running.control("GET", "").json()["urls"] == dict(running.urls)


def test_leaving_in_the_middle_of_a_stall_ends_at_once(start):
    running = start(faults="nos.put:stall")
    with socket.create_connection(("127.0.0.1", running.sandbox.port + 3)) as sock:
        sock.sendall(b"POST /b/o?offset=0 HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        while not running.log("put"):
            pass
        running.stop()


@pytest.mark.parametrize("turns", range(5))
def test_a_connection_that_comes_as_it_ends_is_closed_too(tmp_path, turns):
    async def come_late():
        async with Sandbox(tmp_path) as sandbox:
            late = socket.create_connection(("127.0.0.1", sandbox.port + len(sandbox.urls) - 1))
            for _ in range(turns):
                await asyncio.sleep(0)
        late.close()

    asyncio.run(come_late())
    gc.collect()  # what was left open is told here, and the test fails by it


def program(data, seconds=""):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", PROGRAM, str(data), seconds]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_ends_with_a_signal(tmp_path, number):
    with program(tmp_path) as process:
        ready = process.stdout.readline().split()
        assert ready[0] == "ready"
        assert httpx.get(ready[1] + "/_sandbox/log", trust_env=False).json() == []
        process.send_signal(number)
        rest, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")
    assert rest.startswith("stopped after 0 requests")


def test_serve_ends_with_its_time(tmp_path):
    with program(tmp_path, "0.2") as process:
        lines, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")
    assert [line.split()[0] for line in lines.splitlines()] == ["ready", "stopped"]


def test_nothing_of_the_daemon_is_imported(tmp_path):
    script = "import sys, dumbwaiter_sandbox; print([m for m in sys.modules if m.split('.')[0] == 'dumbwaiter'])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"


def test_one_folder_has_one_sandbox(running, start):
    with pytest.raises(OSError, match="another sandbox runs on"):
        start()
    with open(running.sandbox.config_path) as file:
        assert running.urls["vod"] in file.read()
