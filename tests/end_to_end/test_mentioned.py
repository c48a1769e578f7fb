"""The commands that the pages mention in a sentence, with what a reader puts in the place of ID, PATH and the like."""

import re
import shlex
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from dumbwaiter.store.backup import back_up
from dumbwaiter.store.database import journal_url
from pictures import jpeg
from program import PATIENCE, Program
from terminal import until

ROOT = Path(__file__).parents[2]
PAGES = (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "fs/SEMANTICS.md")
MENTIONED = {
    " ".join(one.split())
    for page in PAGES
    if page.name != "CHANGELOG.md"
    for one in re.findall(r"`dumbwaiter ([a-z\[-][^`]*)`", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL))
    if "…" not in one  # a sentence of the program's
}
# What a block of a page shows as well, or what another test types; see test_pages.py and test_demo.py.
ELSEWHERE = {"run", "service install", "demo [--seconds N] [--keep DIR]"}


@pytest.fixture
def served(program: Program) -> Program:
    """An installation with the names that the pages use."""
    text = program.config.read_text().replace("provider.netease]", "provider.vod]")
    text = text.replace('provider = "netease"', 'provider = "vod"').replace("watch.netease]", "watch.masters]")
    program.config.write_text(text)
    return program


def _rejected(program: Program, name: str) -> str:
    """Has the provider refuse a file, and returns the number of its job."""
    program.vendors.faults("nos.put:400")
    program.write(name, name.encode())
    program.until(lambda: program("wait").returncode == 20)
    program.vendors.faults("")
    return next(str(job["id"]) for job in program.facts("failed") if job["path"] == name)


@pytest.mark.fuse
@pytest.mark.slow
def test_every_command_mentioned_does_its_work(served: Program) -> None:
    program, left = served, set(MENTIONED) - ELSEWHERE
    mount = program.folder / "there"
    mount.mkdir()
    picture = program.data / "drop/xinhua/photo.jpg"

    def does(mentioned: str, wanted: str = "", code: int = 0, **given: str) -> None:
        """Types it with what is meant by its words in capitals, and looks for what it has to say."""
        left.remove(mentioned)
        words = [given.get(word, word) for word in shlex.split(re.sub(r"[\[\]]", "", mentioned))]
        done = program(*words, folder=program.folder)
        assert done.returncode == code, (words, done.stdout, done.stderr)
        assert re.search(wanted, done.stdout + done.stderr, re.MULTILINE), (words, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr

    sandbox = "sandbox [--port N] [--data DIR] [--faults SPEC] [--seconds N]"
    does(sandbox, "^ready http", N="0", DIR="vendors 2", SPEC="nos.put:503@1")
    program.start()
    film = program.write("film.mov", b"moving pictures")
    picture.write_bytes(jpeg())
    assert program("wait").returncode == 0
    job = _rejected(program, "a.bin")
    does("failed", "a.bin", 20)
    does("retry ID", ID=job)
    assert program("wait").returncode == 0
    job = _rejected(program, "b.bin")
    does("retry --all")
    assert program("wait").returncode == 0
    does("forget ID", ID=_rejected(program, "c.bin"))
    does("check FILE", "film.mov", FILE=str(film))
    does("check --online FILE", "film.mov", FILE=str(film))
    does("status", "^running")
    does("status PATH", "^job .*: done", PATH="masters/film.mov")
    does("verify PATH", "^ok", PATH="masters/film.mov")
    does("put --again FILE", "^http", FILE=str(film))
    does("resume NAME", NAME="vod")
    does("rescan WATCH", WATCH="masters")
    does("sync --remote", "careyshop")
    does("doctor", code=program("doctor").returncode)  # it need not like this machine
    does("doctor --bundle FILE", code=program("doctor").returncode, FILE="support.zip")
    assert zipfile.is_zipfile(program.folder / "support.zip")
    does("link --help", "dumbwaiter link")
    does("completion bash", "_dumbwaiter_completion")
    # A daemon with another runtime folder is not found there.
    everywhere = "[--config F] [--state D] [--cache D] [--runtime D] [--json] [-v] [-q] COMMAND"
    does(everywhere, '^{"running": false', F=str(program.config), D=str(program.state), COMMAND="status")

    left.remove("claim PATH")
    claim = [sys.executable, "-m", "dumbwaiter", "claim", "xinhua/photo.jpg"]
    said = until(claim, r"costs one use of the account\. \[y/N\]", "y\n", environment=program.environment)
    assert "photo.claimed.jpg" in {one["path"] for one in program.facts("ls")}, said

    left.remove("mount DIR")
    staying = [sys.executable, "-m", "dumbwaiter", "mount", str(mount)]
    with subprocess.Popen(staying, env=program.environment) as running:
        program.until(lambda: (mount / "files").exists())
        assert (mount / "files/masters/film.mov").read_bytes() == b"moving pictures"
        running.send_signal(signal.SIGINT)
        assert running.wait(PATIENCE) == 0
    assert not list(mount.iterdir())

    assert back_up(journal_url(str(program.state)), time.time())
    assert program.stop() == 0
    (program.state / "journal.db").write_bytes(b"")
    does("recover", "last copy")
    assert program("status", "masters/film.mov").returncode == 0
    assert left == set()
