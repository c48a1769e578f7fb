"""`init` and `completion`: the first minute."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dumbwaiter.config.file import load
from dumbwaiter.config.reader import PROVIDERS
from program import Program
from terminal import until

GIVEN = {
    "netease": ["app_key=k", "app_secret=env:S"],
    "jiandaoyun": ["api_key=env:S", "app_id=a", "entry_id=e", "attachment=_widget_1", "start_workflow=true"],
    "xinhua": ["access_key=k", "secret_key=env:S", 'models=["m"]'],
    "careyshop": ["api=https://s.example/api/v1", "app_key=k", "app_secret=env:S", "username=u", "password=env:S"],
    "jimeng": ["refresh_token=env:S"],
    "recipe": [
        "transport=put",
        "request.url=https://s.example/",
        "request.body.name={key}",
        "reply.url=url",
        "secrets.k=env:S",
    ],
}


@pytest.mark.parametrize("broker", PROVIDERS)
def test_what_is_written_for_each_broker_is_taken_by_check(program: Program, broker: str) -> None:
    config = program.folder / "new/config.toml"
    flags = [word for setting in GIVEN[broker] for word in ("--set", setting)]
    folders = ["--watch", program.folder / "drop here", "--mount", program.folder / "shown"]
    done = program("--config", config, "init", "--broker", broker, *flags, *folders, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"config": str(config)}
    done = program("--config", config, "check", environment={"S": "x"})
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{config} is usable: 1 provider, 1 watch\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--broker", "careyshop"], "without a terminal, say --set api=…"),
        (["--set", "app_key"], "--set app_key: write KEY=VALUE"),
        (["--app-key", "k", "--set", "app_secret=plain"], "app_secret is a secret: say --set app_secret=env:NAME"),
        (["--app-key", "k", "--secret-env", "S", "--set", "apikey=1"], 'unknown key "apikey"'),
        (["--app-key", "k", "--secret-env", "S", "--provider", "a/b"], "a/b"),
        (["--app-key", os.fsdecode(b"k\xff"), "--secret-env", "S"], "k\\xff is no UTF-8"),
        (["--app-key", "j", "--set", "app_key=z", "--secret-env", "S"], "app_key is said more than once"),
        (["--app-key", "j", "--secret-env", "S", "--secret-file", "F"], "app_secret is said more than once"),
        (["--app-key", "j", "--secret-env", "S", "--set", "app_secret=file:F"], "app_secret is said more than once"),
        (["--set", "app_key=j", "--set", "app_key=z", "--secret-env", "S"], "app_key is said more than once"),
        (["--broker", "recipe", "--secret-env", "S"], "a recipe has secrets of any name: say --set secrets.NAME=env:S"),
        (["--app-key", "k", "--secret-env", "S", "--mount", "/etc/hostname"], "/etc/hostname is no folder: name one"),
        (
            [
                "--broker",
                "recipe",
                "--set",
                "transport=put",
                "--set",
                "request=x",
                "--set",
                "request.url=y",
                "--set",
                "reply.url=z",
            ],
            "request is set to something else",
        ),
    ],
)
def test_nothing_is_written_when_an_answer_is_no_good(program: Program, words: list[str], sentence: str) -> None:
    config = program.folder / "new/config.toml"
    done = program("--config", config, "init", *words, "--watch", program.folder / "drop")
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert not config.exists()
    assert not (program.folder / "drop").exists()


@pytest.mark.parametrize("answer", ["hush", "env:WHERE_IT_IS"])
def test_on_a_terminal_everything_is_asked_for(program: Program, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    config, drop = program.folder / "new/config.toml", program.folder / "drop"
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        [sys.executable, "-m", "dumbwaiter", "--config", config, "init"],
        env=program.environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    try:
        for question, word in (
            (b"Broker", b"xinhua"),
            (b"access_key", b"me"),
            (b"secret_key", answer.encode()),
            (b"Folder", os.fsencode(drop)),
        ):
            while not re.search(question + rb"[^\n]*: $", said):
                said += os.read(ours, 1000)
            os.write(ours, word + b"\n")
        while b"is usable" not in said:
            said += os.read(ours, 1000)
        assert running.wait(60) == 0
    finally:
        running.kill()
        running.wait()
        os.close(ours)
    assert answer.encode() not in said
    secret = config.parent / "xinhua.secret_key"
    if answer == "hush":
        assert secret.read_text() == "hush\n"
        assert secret.stat().st_mode & 0o777 == 0o600
    else:
        assert not secret.exists()
        monkeypatch.setenv("WHERE_IT_IS", "hush")
    assert drop.is_dir()
    assert load(str(config)).provider["xinhua"].secret_key.read().reveal() == "hush"  # type: ignore[union-attr]


def _installed(program: Program) -> dict[str, str]:
    """Returns an environment in which `dumbwaiter` is a command."""
    tools = program.folder / "tools"
    tools.mkdir(exist_ok=True)
    (tools / "dumbwaiter").write_text(f'#!/bin/sh\nexec {sys.executable} -m dumbwaiter "$@"\n')
    (tools / "dumbwaiter").chmod(0o755)
    return program.environment | {"PATH": f"{tools}:{os.environ['PATH']}", "TERM": "dumb"}


def _completed(program: Program, *words: str, folder: Path | None = None) -> list[str]:
    """Returns what bash itself offers after these words and Tab."""
    script = program("completion", "bash").stdout
    line = " ".join(f"'{word}'" for word in words)
    asked = f'{script}\nCOMP_WORDS=(dumbwaiter {line}); COMP_CWORD={len(words)}; compopt() {{ echo "$@"; }}; '
    asked += '_dumbwaiter_completion dumbwaiter; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "--norc", "-c", asked],
        env=_installed(program),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


def test_a_shell_completes_commands_names_and_paths(program: Program) -> None:
    assert program("put", program.write("inner/a b.txt", b"x")).returncode == 0
    assert _completed(program, "ver") == ["verify"]
    assert "--deep" in _completed(program, "verify", "--")
    assert _completed(program, "pause", "nete") == ["netease"]
    assert "careyshop-sts" in _completed(program, "put", "--provider", "")
    assert _completed(program, "link", "netease/") == ["-o nospace", "netease/inner/"]
    assert _completed(program, "link", "netease/inner/a") == [r"netease/inner/a\ b.txt"]
    assert _completed(program, "link", "files/net") == ["-o nospace", "files/netease/"]
    assert _completed(program, "cat", "/tm") == ["-o default", ""]
    for shell in ("zsh", "fish"):
        assert "_DUMBWAITER_COMPLETE" in program("completion", shell).stdout


@pytest.mark.torture
def test_a_completed_name_is_one_argument_and_nothing_in_it_is_run(program: Program) -> None:
    names = (
        "$(touch ran).txt",
        "`touch ran`",
        "a; touch ran",
        'it\'s "so"!.txt',
        "a\tb.txt",
        "*",
        "a:b=c,\\.txt",
        "电影 1",
    )
    files = [program.write(f"{n}/{name}", f"content {n}\r\n".encode()) for n, name in enumerate(names)]
    files += [program.write(f"several/`touch ran` {n}", f"content {n}\r\n".encode()) for n in "89"]
    assert program("put", *files).returncode == 0
    (program.folder / "rc").write_text(f"PS1='ready '\n{program('completion', 'bash').stdout}")
    here = program.folder / "here"
    here.mkdir()
    quotes = [("", '"', "'") if "touch" in name or "'" in name else ("",) for name in names]
    typed = [f"dumbwaiter cat {quote}netease/{n}/\t\r" for n in range(len(names)) for quote in quotes[n]]
    typed += ["dumbwaiter cat netease/0\t\t\r", "dumbwaiter cat netease/s\t\t9\r", "dumbwaiter --vers\t\r", "exit\r"]
    shell = ["bash", "--noprofile", "--rcfile", str(program.folder / "rc"), "-i"]
    said = until(shell, "ready $", "".join(typed), environment=_installed(program), folder=here)
    wanted = [str(n) for n in range(len(names)) for _ in quotes[n]] + ["0", "9"]
    assert re.findall(r"^content (\d)", said, re.MULTILINE) == wanted, said
    assert "dumbwaiter --version \r" in said
    assert not list(here.iterdir()), said


def test_completion_is_silent_where_nothing_is_configured(program: Program) -> None:
    program.config.unlink()
    assert _completed(program, "pause", "x") == [""]
