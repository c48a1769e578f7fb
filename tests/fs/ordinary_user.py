"""Run in a mount namespace of its own: mounts, reads and unmounts as an ordinary user, through fusermount.

    unshare --mount --propagation private python -m fs.ordinary_user FOLDER SESSION

What an administrator would have to do for such a user is done in the namespace alone: a /dev/fuse that all may open, a
line in /etc/passwd (fusermount asks for the name), and a way to the interpreter, wherever that lies. Nothing of it
can be seen outside or outlives the process.
"""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

USER = 47_110


def prepare(folder: str) -> None:
    """Makes the machine one on which `USER` may mount."""
    if os.readlink("/proc/self/ns/mnt") == os.readlink(f"/proc/{os.getppid()}/ns/mnt"):
        raise RuntimeError("only in a mount namespace of its own: whatever is bound here can be deleted from here")
    bind(node(f"{folder}/fuse"), "/dev/fuse")
    with open("/etc/passwd", encoding="utf-8") as known, open(f"{folder}/passwd", "w", encoding="utf-8") as file:
        file.write(known.read() + f"somebody:x:{USER}:{USER}::{folder}:/bin/sh\n")
    bind(f"{folder}/passwd", "/etc/passwd")
    needed = {os.path.realpath(path) for path in (sys.base_prefix, sys.prefix, Path(__file__).parents[2])}
    for closed in sorted({above for path in needed if (above := closed_above(path))}):
        inside = [path for path in sorted(needed) if path.startswith(f"{closed}/")]
        held = [f"{folder}/held{number}" for number in range(len(inside))]
        for path, place in zip(inside, held, strict=True):
            os.mkdir(place)
            bind(path, place)
        mount("-t", "tmpfs", "-o", "mode=755", "none", closed)
        for path, place in zip(inside, held, strict=True):
            os.makedirs(path, exist_ok=True)
            bind(place, path)
    os.mkdir(f"{folder}/root")
    os.mkdir(f"{folder}/home")
    os.chown(f"{folder}/home", USER, USER)


def node(path: str) -> str:
    """Makes a /dev/fuse for everybody."""
    os.mknod(path, stat.S_IFCHR | 0o666, os.stat("/dev/fuse").st_rdev)
    os.chmod(path, 0o666)
    return path


def closed_above(path: str) -> str | None:
    """Returns the highest folder on the way to `path` that others may not enter."""
    for above in reversed(Path(path).parents):
        if not above.stat().st_mode & stat.S_IXOTH:
            return str(above)
    return None


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def bind(what: str, where: str) -> None:
    mount("--bind", what, where)


def live(folder: str, session: str) -> None:
    """Mounts twice as that user, once to be ended by a signal and once by the program."""
    from dumbwaiter_fs import mount_point
    from fs.world import Mounted, Shelf, command

    shelf = Shelf(f"{folder}/home")
    shelf.choose(session)
    shelf.entry("d/a", shelf.write("d/a", b"bytes"), url="https://h/a")
    other = subprocess.run(
        command(shelf, "--check", f"{folder}/root"), stderr=subprocess.PIPE, text=True, check=False, timeout=30
    )
    assert (other.returncode, "is not this user's" in other.stderr) == (2, True), other.stderr
    mounted = Mounted(shelf)
    try:
        mounted.wait()
        with open("/proc/self/mountinfo", encoding="utf-8") as lines:
            (line,) = [line for line in lines if f" {shelf.mount} " in line]
        assert f"user_id={USER},group_id={USER}" in line, line
        assert {"ro", "nosuid", "nodev"} <= set(line.split()[5].split(",")), line
        assert (os.stat(mounted.path).st_uid, os.getuid()) == (USER, USER)
        assert mounted.read("files/w/d/a") == mounted.read("keys/p/k/d/a") == b"bytes"
        assert os.getxattr(mounted.at("files/w/d/a"), "user.dumbwaiter.url") == b"https://h/a"
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir(mounted.at("files/w/new"))
        assert mounted.stop() == 0, mounted.said()
        assert mount_point.kind(shelf.mount) is None
        subprocess.run(command(shelf, "--background"), check=True, timeout=30)
        assert mounted.read("files/w/d/a") == b"bytes"
        subprocess.run(command(shelf, "--unmount"), check=True, timeout=30)
        assert mount_point.kind(shelf.mount) is None
    finally:
        mounted.clear()
        shelf.close()


if __name__ == "__main__":
    prepare(sys.argv[1])
    os.setgroups([])
    os.setgid(USER)
    os.setuid(USER)
    os.environ["HOME"] = f"{sys.argv[1]}/home"
    live(*sys.argv[1:])
