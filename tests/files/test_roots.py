"""The way to a watched folder, and which disk it lies on."""

import errno
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dumbwaiter.files import roots
from dumbwaiter.files.roots import (
    ForeignLink,
    disk_of,
    hangs_with,
    inspect_folder,
    is_remote,
    mounted_at,
    network_at,
    open_root,
)
from stranger import UID, needs_root


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Roots are opened every few seconds, for months: nothing is left open."""
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) <= before  # another test's may go meanwhile


def led_to(path: str | Path) -> str:
    descriptor = open_root(str(path))
    try:
        assert not os.get_inheritable(descriptor)
        return os.readlink(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def test_links_on_the_way_are_followed_as_the_system_does(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    for name, target in {"up": "a/../a/b", "far": str(tmp_path / "a"), "a/back": ".."}.items():
        (tmp_path / name).symlink_to(target)
    for path in ("a/b", "up", "far/b", "far/back/up/.", "a//back/far"):
        assert led_to(tmp_path / path) == os.path.realpath(tmp_path / path)
    (tmp_path / "file").touch()
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "nowhere").symlink_to("none")
    for path, code in {"file": errno.ENOTDIR, "round": errno.ELOOP, "nowhere": errno.ENOENT}.items():
        with pytest.raises(OSError, match=os.strerror(code)) as raised:
            open_root(str(tmp_path / path))
        assert raised.value.errno == code


@needs_root
@pytest.mark.parametrize("target", ["real", "{}/real"])
def test_only_links_of_ones_own_and_of_root_are_followed(
    tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real/inner").mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(target.format(tmp_path))
    os.lchown(link, UID, UID)
    for path in (link, link / "inner"):
        with pytest.raises(ForeignLink) as raised:
            open_root(str(path))
        assert raised.value.sentence == f"the link {link} is another user's, and is not followed"
    for user, owner in ((UID, UID), (UID, 0)):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        os.lchown(link, owner, owner)
        assert led_to(link / "inner") == str(tmp_path / "real/inner")


def test_a_link_in_the_first_folder_is_followed_whosever_it_seems_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a user's own container root is nobody."""
    fstat = os.fstat
    links = [one.path for one in os.scandir("/") if one.is_symlink() and one.is_dir()]
    if not links:
        pytest.skip("the first folder has no link here")

    def unmapped(descriptor: int) -> os.stat_result:
        found = fstat(descriptor)
        return os.stat_result((*found[:4], 65534, *found[5:10])) if stat.S_ISLNK(found.st_mode) else found

    (tmp_path / "again").symlink_to(links[0])
    monkeypatch.setattr(os, "fstat", unmapped)
    assert led_to(links[0]) == os.path.realpath(links[0])
    with pytest.raises(ForeignLink):
        open_root(str(tmp_path / "again"))


def test_a_network_is_the_disk_of_what_lies_below_it_and_of_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    places = [("/", "ext4"), ("/nas", "nfs4"), ("/nas/inner", "fuse.sshfs"), ("/nas/inner/ours", "ext4")]
    monkeypatch.setattr(roots, "mounts", lambda: iter(places))
    wanted = {"/nas": "/nas", "/nas/a": "/nas", "/nas/inner/a": "/nas/inner", "/nasty": "", "/home": ""}
    assert {folder: network_at(folder) for folder in wanted} == wanted
    assert (disk_of("/nas/a"), disk_of("/home/a")) == ("/nas", "/home/a")
    assert hangs_with("/nas/a", "b/film.mov") == "/nas/a"
    assert (hangs_with("/", "nas/a/film.mov"), hangs_with("/", "home/film.mov")) == ("/nas", "/home")


def test_where_something_is_mounted_is_read_as_the_kernel_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = tmp_path / "mounts"
    lines.write_text("none /a\\040b\\134c nfs rw 0 0\nnone /d fuse.dumbwaiter ro 0 0\n")
    monkeypatch.setattr("builtins.open", lambda _path, real=open, **more: real(lines, **more))
    assert list(roots.mounts()) == [("/a b\\c", "nfs"), ("/d", "fuse.dumbwaiter")]


@needs_root
def test_a_folder_of_the_same_path_on_another_disk_is_mounted(tmp_path: Path) -> None:
    disk, folder = tmp_path / "disk", tmp_path / "w"
    disk.mkdir()
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", disk], check=True)
    try:
        twin = disk / folder.relative_to(mounted_at(str(tmp_path)))
        twin.mkdir(parents=True)
        subprocess.run(["mount", "--bind", twin, folder], check=True)
        try:
            assert inspect_folder(str(folder)).mounted
        finally:
            subprocess.run(["umount", folder], check=True)
    finally:
        subprocess.run(["umount", disk], check=True)


@needs_root
def test_which_kind_of_file_system_a_folder_is_on_is_known_by_its_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    here = inspect_folder("/proc")
    assert (here.kind, here.mounted, here.remote) == ("proc", True, "")
    asked: list[str] = []
    kind = roots._kind
    monkeypatch.setattr(roots, "_kind", lambda mount: asked.append(mount) or kind(mount))
    monkeypatch.setattr(roots, "_kinds", {})
    now = 100.0
    monkeypatch.setattr(roots.time, "monotonic", lambda: now)
    with open("/proc/self/stat") as file:
        for moment, times in ((100.0, 1), (100.0 + roots.KNOWN, 1), (101.5 + roots.KNOWN, 2)):
            now = moment
            assert not is_remote(file.fileno())
            assert len(asked) == times
