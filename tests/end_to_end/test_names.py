"""Providers and watches may be called whatever a folder can be called: nothing on the way stumbles over a name."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dumbwaiter.places import short
from dumbwaiter_fs import mount_point
from program import Program

PROVIDER, WATCH = "网易云 点播", "电影 素材"


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    with Program(tmp_path) as made:
        text = made.config.read_text()
        for old, new in {
            "[provider.netease]": f'[provider."{PROVIDER}"]',
            "[watch.netease]": f'[watch."{WATCH}"]',
            'provider = "netease"': f'provider = "{PROVIDER}"',
        }.items():
            assert text.count(old) == 1
            text = text.replace(old, new)
        made.config.write_text(f'{text}\n[limits.requests]\n"{PROVIDER}" = 30\n')
        try:
            yield made
        finally:
            while mount_point.kind(str(made.mount)) == mount_point.KIND:
                mount_point.unmount(str(made.mount), lazy=True)


def metrics(program: Program) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        with short(str(program.state / "run/control.sock")) as path:
            client.connect(path)
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return b"".join(iter(lambda: client.recv(65536), b"")).decode()


@pytest.mark.parametrize("session", ["auto", "fusepy"])
def test_a_chinese_watch_and_provider_work_everywhere(program: Program, session: str) -> None:
    text = program.config.read_text()
    assert text.count("[mount]") == 1
    program.config.write_text(text.replace("[mount]", f'[mount]\nsession = "{session}"'))
    assert program("check").returncode == 0
    program.start()
    assert program("pause", WATCH).stderr.startswith(f"{WATCH} rests until")
    program.write("片头/一.mov", b"moving pictures")
    program.until(lambda: program.status()["jobs"])
    assert f"{WATCH} rests until" in program("status", f"{WATCH}/片头/一.mov").stdout
    assert program("resume", WATCH).returncode == 0
    assert program("rescan", WATCH).returncode == 0
    assert program("wait").returncode == 0
    assert program("ls", WATCH).stdout == f"{WATCH}/片头/一.mov\n"
    (entry,) = program.facts("history")
    assert (entry["provider"], entry["watch"], entry["path"]) == (PROVIDER, WATCH, "片头/一.mov")
    assert program("put", "--watch", WATCH, program.drop / "片头/一.mov").returncode == 0
    assert program("verify", WATCH).returncode == 0
    said = metrics(program)
    assert f'dumbwaiter_watch_there{{watch="{WATCH}"}} 1.0' in said
    assert f'dumbwaiter_provider_ready{{provider="{PROVIDER}"}} 1.0' in said
    assert program("mount", "--background").returncode == 0
    assert os.listdir(program.mount / "files") == [WATCH]
    assert (program.mount / "files" / WATCH / "片头/一.mov").read_bytes() == b"moving pictures"
    assert (program.mount / "keys" / PROVIDER / entry["key"]).read_bytes() == b"moving pictures"
    assert program("umount").returncode == 0
    assert program("pause", PROVIDER, environment={"LC_ALL": "C"}).returncode == 0
    assert program("doctor", environment={"LC_ALL": "C"}).returncode in {0, 1}
    program.kill()
    program.start()
    (rests,) = program.status()["paused"]
    assert rests["name"] == PROVIDER
    assert program.stop() == 0
    assert "Traceback" not in program.log.read_text()


def test_names_are_utf_8_in_every_locale(program: Program) -> None:
    """Under zh_CN.GB18030, which few machines have, a name was read as another one; ASCII, which every one has, is as bad."""
    program.environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    program.start()
    program.write("片头/一.mov", b"moving pictures")
    assert program("wait").returncode == 0
    assert program("ls", WATCH).stdout == f"{WATCH}/片头/一.mov\n"
    assert program("cat", program.drop / "片头/一.mov").stdout == "moving pictures"
    assert program("rescan", WATCH).returncode == 0
    assert program("mount", "--background").returncode == 0
    assert (program.mount / "files" / WATCH / "片头/一.mov").read_bytes() == b"moving pictures"
    assert program("umount").returncode == 0
    assert program.stop() == 0
    assert "Traceback" not in program.log.read_text()


def test_what_the_program_was_started_as_is_what_it_begins_anew_as_for_utf_8() -> None:
    """A supervisor may name a process as it likes: Python then takes what it finds by that name for itself."""
    script = Path(sys.executable).with_name("dumbwaiter")
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PATH": str(script.parent)}
    words = ["dumbwaiter", script, "--version"]
    done = subprocess.run(
        words, executable=sys.executable, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_folder_that_is_no_utf_8_is_shown_alike_by_every_command(program: Program) -> None:
    """The configuration cannot name it; what is relative in a configuration that lies there means it."""
    odd = program.folder / os.fsdecode(b"odd\xff")
    (odd / "shown").mkdir(parents=True)
    config = odd / "config.toml"
    config.touch(0o600)
    text = re.sub(r"(\[mount\]\npath = ).*", r'\1"shown"', program.config.read_text())
    config.write_text(text.replace(f'"{program.drop}"', '"drop"'))
    program.environment |= {"DUMBWAITER_CONFIG": str(config), "DUMBWAITER_STATE": str(odd / "state")}
    commands: list[tuple[str, ...]] = [("check",), ("check", str(odd / "drop/a")), ("doctor",), ("init",), ("umount",)]
    for folder in (odd / "drop", odd):
        for words in [*commands, ("put", str(odd / "a")), ("recover",), ("retry", "--all"), ("status", str(odd / "a"))]:
            for as_json in ((), ("--json",)):
                done = program(*as_json, *words)
                said = (done.stdout + done.stderr).replace(r"\\", "\\")
                assert r"odd\xff" in said or words[0] == "retry", (words, done)
                assert r"\udcff" not in said, (words, done)
        folder.mkdir(exist_ok=True)
    assert program.facts("check")["config"] == rf"{program.folder}/odd\xff/config.toml"
