"""Runs the examples of fs/SEMANTICS.md on real mounts and compares their output, line by line."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fs.world import Mounted, Origin, Shelf, also_libfuse3

pytestmark = pytest.mark.fuse

PAGE = Path(__file__).parents[2] / "fs" / "SEMANTICS.md"


def examples() -> list[tuple[str, str]]:
    """Returns command and output of every example in a fenced block."""
    blocks = re.findall(r"^```\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    parts = (part.partition("\n") for block in blocks for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:])
    return [(command, output) for command, _, output in parts]


@also_libfuse3
def test_the_examples_of_the_page_hold(shelf: Shelf, mount: Callable[..., Mounted], origin: Origin) -> None:
    cat, far = b"bytes of the cat", b"bytes from afar\n"
    shelf.entry(
        "photos/cat.png",
        shelf.write("photos/cat.png", cat),
        key="up/cat.png",
        url="https://cdn.example/up/cat.png",
        etag="e1",
        verified="md5",
    )
    shelf.entry("photos/far.bin", len(far), key="up/far.bin", url=origin.put("far", far))
    shelf.entry("photos/lost.bin", 100, key="up/lost.bin")
    shelf.job("clips/raw.mov", shelf.write("clips/raw.mov", b"not sent yet\n"))
    mounted = mount()
    found = examples()
    assert len(found) >= 10
    for command, expected in found:
        done = subprocess.run(
            command,
            shell=True,
            cwd=mounted.path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            timeout=30,
        )
        assert done.stdout.decode().rstrip("\n") == expected.rstrip("\n"), command
