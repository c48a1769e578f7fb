"""Files as programs write them: nothing goes up that never was a whole version, and the last one always does."""

import mmap
import os
import shutil
import time
from pathlib import Path

import pytest

from program import Program, digest

SETTLE = 0.2  # seconds, in the sandbox's configuration


def whole(program: Program, files: dict[str, bytes]) -> None:
    """Waits until each of these is at the provider in its last version."""
    wanted = {name: digest(content) for name, content in files.items()}
    program.until(lambda: wanted.items() <= program.stored().items())


def test_t06_a_slow_copy_with_its_file_open_is_taken_once_it_is_whole(program: Program) -> None:
    program.start()
    parts = [os.urandom(1000) for _ in range(4)]
    with open(program.drop / "slow.mov", "wb", buffering=0) as file:
        for part in parts:
            file.write(part)
            time.sleep(3 * SETTLE)  # the pause is what is tested
    with open(program.drop / "mapped.bin", "w+b") as file:
        file.truncate(4096)
        mapped = mmap.mmap(file.fileno(), 4096)
    time.sleep(3 * SETTLE)
    mapped[:4] = b"done"
    mapped.flush()
    content = mapped[:]
    mapped.close()
    whole(program, {"slow.mov": b"".join(parts), "mapped.bin": content})
    assert set(program.objects()) == {digest(b"".join(parts)), digest(content)}


def test_t06_saves_of_editors_and_downloads_come_under_their_real_names_only(program: Program) -> None:
    program.start()
    drop = program.drop
    for name, temporary in {
        "film.mov": "film.mov.part",
        "page.html": "page.html.crdownload",
        "text.txt": ".text.txt.swp",
        "sheet.ods": ".goutputstream-A1B2C3",
        "sync.bin": ".sync.bin.Ab3dEf",
    }.items():
        (drop / temporary).write_bytes(b"half")
        time.sleep(2 * SETTLE)
        (drop / temporary).write_bytes(name.encode())
        (drop / temporary).rename(drop / name)
    (drop / "~$letter.docx").write_bytes(b"owner")
    (drop / ".~lock.sheet.ods#").write_bytes(b"owner")
    names = ["film.mov", "page.html", "text.txt", "sheet.ods", "sync.bin"]
    whole(program, {name: name.encode() for name in names})
    assert set(program.stored()) == set(names)
    assert set(program.objects()) == {digest(name.encode()) for name in names}


def test_t06_a_file_that_is_appended_to_ends_in_its_last_version(program: Program) -> None:
    program.start()
    versions = [b"line\n" * count for count in range(1, 5)]
    for _ in versions:
        with open(program.drop / "log.txt", "ab") as file:
            file.write(b"line\n")
        time.sleep(SETTLE / 2)
    whole(program, {"log.txt": versions[-1]})
    assert set(program.objects()) <= {digest(version) for version in versions}


def test_t05_new_folders_copies_moves_and_links_are_all_found(program: Program, tmp_path: Path) -> None:
    program.start()
    drop, files = program.drop, {}
    for number in range(30):
        folder = drop / f"made/{number}/b/c"
        folder.mkdir(parents=True)
        (folder / "f").write_bytes(f"made {number}".encode())
        files[f"made/{number}/b/c/f"] = f"made {number}".encode()
    aside = tmp_path / "aside-tree"
    for number in range(30):
        (aside / f"{number % 3}").mkdir(parents=True, exist_ok=True)
        (aside / f"{number % 3}/{number}").write_bytes(f"tree {number}".encode())
    shutil.copytree(aside, drop / "copied")
    os.link(aside / "0/0", drop / "linked")
    aside.rename(drop / "moved")
    for number in range(30):
        for name in ("copied", "moved"):
            files[f"{name}/{number % 3}/{number}"] = f"tree {number}".encode()
    files["linked"] = b"tree 0"
    whole(program, files)
    assert set(program.stored()) == set(files)


def test_t15_odd_names_go_up_and_what_is_no_file_is_left_alone(program: Program) -> None:
    names = [b"\xff\xfe", b"a\nb", b"\x1b[0m", "\u00e9".encode(), "e\u0301".encode(), b"Case", b"case", b"n" * 255]
    drop = os.fsencode(program.drop)
    os.makedirs(drop, exist_ok=True)
    os.mkdir(drop + b"/loop")
    for name in (b"one", b"two"):
        os.symlink(b"..", drop + b"/loop/" + name)
    os.mkfifo(drop + b"/fifo")
    program.start()
    for name in names:
        with open(drop + b"/" + name, "wb") as file:
            file.write(b"content of " + name)
    program.until(lambda: program.totals()["done"] == len(names))
    contents = {digest(b"content of " + name) for name in names}
    assert set(program.objects()) == contents
    assert len(program.catalogued()) == len(names)
    assert program.status()["totals"]["rejected"] == 0


@pytest.mark.torture
@pytest.mark.timeout(300)
@pytest.mark.parametrize("folders", [8000, 20_000])
def test_t04_a_file_in_the_last_of_very_many_folders_is_heard(program: Program, folders: int) -> None:
    for number in range(folders):
        (program.drop / f"{number // 100}/{number}").mkdir(parents=True)
    program.start()
    program.until(lambda: any(one["state"] == "watching" for one in program.status()["watches"]))
    last = program.drop / f"{(folders - 1) // 100}/{folders - 1}/last.txt"
    last.write_bytes(b"last")
    program.until(lambda: digest(b"last") in program.stored().values())
