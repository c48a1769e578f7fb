"""The README's first minute, as a newcomer types it, in both languages."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dead_disk import FUSERMOUNT
from program import Program

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "README.zh-CN.md")
ELSEWHERE = ("make ", "pipx ", "dumbwaiter service install")  # their own tests run these


def commands(page: str) -> list[str]:
    """Returns what the page tells to type, without the remarks."""
    text = (ROOT / page).read_text()
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    return [line.partition(" #")[0].rstrip() for line in lines]


def test_both_languages_tell_the_same() -> None:
    english, chinese = (commands(page) for page in PAGES)
    assert english == chinese
    headings = [re.findall(r"^#+ ", (ROOT / page).read_text(), re.MULTILINE) for page in PAGES]
    assert headings[0] == headings[1]
    links = [re.findall(r"\]\((docs/[^)]*)\)", (ROOT / page).read_text()) for page in PAGES]
    assert set(links[0]) == set(links[1])
    for link in links[0]:
        assert (ROOT / link.partition("#")[0]).exists()


@pytest.mark.fuse
@pytest.mark.slow
def test_a_newcomer_gets_through_the_page(program: Program) -> None:
    account, urls = program.vendors.sandbox.accounts["netease"], program.vendors.sandbox.urls
    home, tools = program.folder / "home", program.folder / "tools"
    home.mkdir()
    tools.mkdir()
    (home / "film.mov").write_bytes(os.urandom(100_000))
    (tools / "dumbwaiter").write_text(f'#!/bin/sh\nexec {sys.executable} -m dumbwaiter "$@"\n')
    (tools / "dumbwaiter").chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "DUMBWAITER_"))}
    program.environment = kept | {
        "HOME": str(home),
        "PATH": f"{tools}:{os.environ['PATH']}",
        "XDG_RUNTIME_DIR": str(program.folder),
        "VOD_SECRET": account["app_secret"],
    }
    said: dict[str, str] = {}
    try:
        for line in commands("README.md"):
            if line.startswith(ELSEWHERE) or line.startswith("export "):
                continue
            if line == "dumbwaiter run":
                program.start()
                continue
            if " init " in line:
                line = line.replace("KEY", account["app_key"])
                line += "".join(
                    f" --set {shlex.quote(f'{key}={url}')}"
                    for key, url in {"api": urls["vod"], "lbs": urls["lbs"], "cdn": urls["cdn"] + "/{bucket}"}.items()
                )
            if line == "dumbwaiter wait":
                program.until(lambda: program.totals()["done"] == 2)
            done = subprocess.run(
                ["bash", "-c", line],
                env=program.environment,
                cwd=home,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            said[line] = done.stdout
            assert done.returncode == 0 or line == "dumbwaiter doctor", (line, done.stderr)
    finally:
        subprocess.run([FUSERMOUNT, "-uz", home / "Uploads"], check=False, capture_output=True)
    assert said["ls ~/Uploads/files/drop"] == "film.mov\n"
    assert said["dumbwaiter put film.mov"].startswith("http")
    assert said["dumbwaiter link drop/film.mov --format markdown"].startswith("[film.mov](http")
