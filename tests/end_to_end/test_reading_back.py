"""Files whose originals are gone are read back from the vendors, by links that the running daemon gets."""

import errno
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from dumbwaiter.model import MIB
from dumbwaiter_fs import mount_point
from program import Program

pytestmark = pytest.mark.fuse
BODY = random.Random(5).randbytes(MIB // 2 + 17).hex().encode()  # what `cat` prints can be read as text
DAY = 86400


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    with Program(tmp_path) as made:
        try:
            made.start()
            yield made
        finally:
            while mount_point.kind(str(made.mount)) == mount_point.KIND:
                mount_point.unmount(str(made.mount), lazy=True)


def away(program: Program, watch: str, name: str, body: bytes = BODY) -> str:
    """Uploads a file, removes the original, and returns its path in the mount."""
    local = program.data / "drop" / watch / name
    local.write_bytes(body)
    assert program("wait").returncode == 0
    local.unlink()
    return f"files/{watch}/{name}"


def mounted(program: Program, *paths: str) -> list[Path]:
    assert program("mount", "--background").returncode == 0
    return [program.mount / path for path in paths]


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(OSError, match=r"\[Errno") as raised:
        call()
    return errno.errorcode[raised.value.errno or 0]


def why(path: Path) -> str:
    return os.getxattr(path, "user.dumbwaiter.error").decode()


@pytest.mark.parametrize("how", ["overwritten", "cut"])
def test_an_original_that_is_changed_while_it_is_printed_is_not_taken_for_whole(program: Program, how: str) -> None:
    path = program.write("film.mov", os.urandom(8 * MIB))
    assert program("wait").returncode == 0
    command = [sys.executable, "-m", "dumbwaiter", "cat", "netease/film.mov"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=program.environment, stdout=pipe, stderr=pipe) as cat:
        assert cat.stdout is not None
        assert cat.stderr is not None
        cat.stdout.read(1000)
        with open(path, "r+b") as file:
            if how == "cut":
                file.truncate(5 * MIB)
            else:
                file.seek(4 * MIB)
                file.write(b"another version")
        cat.stdout.read()
        assert cat.stderr.read() == b"dumbwaiter: netease/film.mov was changed while it was read\n"
    assert cat.returncode == 5


def test_an_attachment_is_read_after_its_link_has_ended(program: Program) -> None:
    one, two = (away(program, "jiandaoyun", name) for name in ("a b.bin", "二.bin"))
    program.vendors.advance(20 * DAY)
    first, second = mounted(program, one, two)
    before = len(program.vendors.log())
    for line in ("ls -lR .", "find . -size +1k", "du -a .", "getfattr -d -R ."):
        assert subprocess.run(line.split(), cwd=program.mount, stdout=subprocess.DEVNULL).returncode == 0, line
    assert len(program.vendors.log()) == before, "nothing but reading asks anybody"
    assert first.read_bytes() == BODY
    assert first.read_bytes() == BODY
    made = [(entry["service"], entry["status"]) for entry in program.vendors.log()[before:]]
    assert made[:2] == [("io", 403), ("forms", 200)], "the catalogued link, then the record"
    assert set(made[2:]) == {("io", 206)}
    assert program("cat", one).stdout.encode() == BODY
    assert program.stop() == 0
    assert code_of(second.read_bytes) == "EACCES"
    assert os.getxattr(first, "user.dumbwaiter.error") == b""
    assert first.read_bytes() == BODY, "what was read once needs nobody"


def test_a_link_that_says_it_is_over_is_not_given_out(program: Program) -> None:
    program.vendors.options("jiandaoyun", url_life=-5)
    path = away(program, "jiandaoyun", "a.bin")
    program.vendors.options("jiandaoyun", url_life=3600)
    link = program("link", path)
    assert link.returncode == 0, link.stderr
    assert httpx.get(link.stdout.strip(), trust_env=False).content == BODY
    assert program.stop() == 0
    done = program("link", path)
    assert (done.returncode, done.stdout) == (23, "")
    assert "daemon" in done.stderr
    done = program("verify", path)
    assert (done.returncode, done.stdout.startswith("cannot tell")) == (23, True)
    assert "some links have to come from the daemon: start it with `dumbwaiter run`" in done.stderr
    (file,) = mounted(program, path)
    assert code_of(file.read_bytes) == "ENXIO"
    assert "the daemon, which is not running" in why(file)


def test_a_video_in_a_private_bucket_is_read(program: Program) -> None:
    program.vendors.options("netease", signed_downloads=True, download_life=600)
    path = away(program, "netease", "a.mov")
    (file,) = mounted(program, path)
    assert file.read_bytes() == BODY
    assert program("cat", path).stdout.encode() == BODY


def test_what_a_vendor_never_gives_back_is_listed_and_open_says_why(program: Program) -> None:
    body = (Path(__file__).parents[2] / "daemon/dumbwaiter_sandbox/jimeng/imagex_picture.py").read_bytes()
    path = away(program, "jimeng", "a.jpg", body)
    (file,) = mounted(program, path)
    assert file.stat().st_size == len(body)
    assert "the original is gone" in why(file)
    assert code_of(file.read_bytes) == "ENXIO"
    assert "the provider gives no way to read it back" in why(file)
    done = program("link", path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no way to read it back" in done.stderr
