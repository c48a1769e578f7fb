"""Rules: junk, include, exclude and the folder's own ignore file."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from dumbwaiter.errors import Exit, Failure
from dumbwaiter.files.ignore import _CLASSES, _REMEMBERED, JUNK, Rules, once, rules

TEMPORARY = [
    "film.mkv.part",
    "setup.exe.crdownload",
    "a.partial",
    "a.filepart",
    "a.download",
    "a.tmp",
    "a.aria2",
    "film.f137.mp4.ytdl",
    "film.mkv.baiduyun.p.downloading",
    "film.mkv.xltd",
    "film.mkv.xltd.cfg",
    "film.mkv.!qB",
    ".pending-1700000000-IMG_1.jpg",
    ".trashed-1700000000-IMG_1.jpg",
    ".stversions/photo~20260101-120000.jpg",
    ".sync_0123456789ab.db-wal",
    ".film.mov.~cc8dad9",
    "._photo.jpg",
    "System Volume Information/IndexerVolumeGuid",
    "$RECYCLE.BIN/S-1-5-21/$RABCDEF.jpg",
    ".Trashes/501/film.mov",
    "~$report.docx",
    ".~lock.report.odt#",
    ".notes.txt.swp",
    ".notes.txt.swo",
    ".notes.txt.swx",
    ".notes.txt.kate-swp",
    "4913",
    "notes.txt~",
    "#notes.txt#",
    ".goutputstream-X3ZK80",
    ".fuse_hidden0000000100000001",
    ".nfs000000000012",
    ".photo.jpg.AbCdEf",
    ".DS_Store",
    "Thumbs.db",
    "desktop.ini",
    ".directory",
    ".dumbwaiterignore",
    ".dumbwaiter-marker",
    ".Trash/1000/files/film.mov",
    ".Trash-1000/info/film.mov.trashinfo",
    ".local/share/Trash/files/film.mov",
    "film.mov.opdownload",
    "film.mov.!ut",
    ".swp",
    ".rsync-partial/film.mov",
    ".in.film.mov.",
    ".DAV/film.mov",
    ".davfs.tmp1a2b3c",
    "film.mov.lftp-pget-status",
    ".stfolder/marker",
    ".nextcloudsync.log",
    ".owncloudsync.log",
    ".dropbox",
    ".dropbox.cache/film.mov",
    ".Spotlight-V100/Store-V2",
    ".fseventsd/0000000000a1b2c3",
    ".TemporaryItems/film.mov",
    ".DocumentRevisions-V100/film.mov",
    "lost+found/#12345",
]
WANTED = [
    "photo.jpg",
    "party",
    "a.partly",
    "x.tmp.jpg",
    "lock#",
    "14913",
    "4913.jpg",
    ".bashrc",
    ".profile",
    "a b.txt",
    "$x",
    "#1.jpg",
    "\udcff\udcfe.jpg",
    "a.part\n",
    "two\nlines.jpg",
    "中文.jpg",
    "dumbwaiter.txt",
    "notes.directory",
    "notes.kate-swp",
    "downloading",
    "film.mov.~cc8dad9",
    "film.ytdl.txt",
    "a.xltdx",
    "pending-1.jpg",
    "$RECYCLE.BIN",
]
ODD_FOLDERS = ["", "a/", "a/b/c/", "two\nlines/", "\udcff/", " /", "-/", "a\tb/"]


@pytest.mark.parametrize("name", TEMPORARY)
@pytest.mark.parametrize("folder", ODD_FOLDERS)
def test_temporary_names_are_left_out_everywhere(folder: str, name: str) -> None:
    rules = Rules()
    assert not rules.takes(folder + name)
    assert rules.why(folder + name).startswith(("junk pattern '", "dumbwaiter's own"))


@pytest.mark.parametrize("name", [".dumbwaiterignore", ".dumbwaiter-after-1", "a/.dumbwaiter-after-1"])
def test_what_the_program_makes_there_itself_cannot_be_taken_back(name: str) -> None:
    rules = Rules(exclude=["!*", "!.*", "!.dumbwaiter*"])
    assert rules.takes("a/.dumbwaiterignore")
    assert rules.takes("a.tmp")
    assert rules.why(name) == "dumbwaiter's own"


@pytest.mark.parametrize("name", WANTED)
@pytest.mark.parametrize("folder", ODD_FOLDERS)
def test_names_that_only_resemble_them_are_taken(folder: str, name: str) -> None:
    assert Rules().takes(folder + name)
    assert Rules().why(folder + name) == "taken"


def test_vim_s_test_file_does_not_cost_a_folder_of_that_name() -> None:
    rules = Rules()
    assert rules.enters("4913")
    assert rules.takes("4913/a.jpg")
    assert not rules.takes("4913/4913")


def test_exclude_takes_a_name_back_from_the_junk_list() -> None:
    rules = Rules(exclude=["!*.tmp"])
    assert rules.takes("a.tmp")
    assert not rules.takes("a.part")


def test_the_junk_list_can_be_replaced() -> None:
    assert Rules(junk=()).takes("a.part")


def test_exclude_says_which_pattern_decided() -> None:
    rules = Rules(exclude=["*.raw", "/secret/"])
    assert rules.why("a/b.raw") == "exclude '*.raw'"
    assert rules.why("secret/a.jpg") == "exclude '/secret/' on folder 'secret'"
    assert rules.takes("a/secret/b.jpg")


def test_the_ignore_file_speaks_last() -> None:
    rules = Rules(exclude=["*.raw"], ignore_file="\ufeff# mine\r\n!keep.raw\r\n\r\nold/\r\n")
    assert rules.takes("keep.raw")
    assert not rules.takes("other.raw")
    assert rules.why("old/a") == ".dumbwaiterignore 'old/' on folder 'old'"
    assert rules.unread == []


def test_include_is_all_that_is_taken() -> None:
    rules = Rules(include=["*.jpg", "scans/", "!scans/drafts/"])
    assert rules.takes("deep/down/a.jpg")
    assert rules.takes("scans/a.txt")
    assert rules.takes("scans/more/a.txt")
    assert not rules.takes("scans/drafts/a.txt")
    assert rules.takes("scans/drafts/a.jpg")
    assert rules.why("a.txt") == "not in include"
    assert rules.enters("deep/down")


def test_junk_is_left_out_of_what_include_asks_for() -> None:
    assert not Rules(include=["*"]).takes("a.part")


def test_nothing_inside_an_ignored_folder_comes_back() -> None:
    rules = Rules(exclude=["cache/", "!cache/keep.jpg"])
    assert not rules.enters("cache")
    assert not rules.enters("cache/deeper/still")
    assert not rules.takes("cache/keep.jpg")
    assert not rules.takes("a/cache/b/c.jpg")


def test_a_folder_taken_back_does_not_take_back_what_is_in_it() -> None:
    rules = Rules(exclude=["!a.part/"])
    assert rules.takes("a.part/file")
    assert not rules.takes("a.part/b.part")
    assert not rules.enters("a.part/b.part")


def test_everything_in_a_folder_but_one_file() -> None:
    rules = Rules(exclude=["box/**", "!box/keep.jpg"])
    assert rules.enters("box")
    assert rules.takes("box/keep.jpg")
    assert not rules.takes("box/other.jpg")
    assert not rules.enters("box/sub")


@pytest.mark.parametrize("pattern", ["!", "\\", "x\\", "[z-a]", "a[", "/"])
@pytest.mark.parametrize("place", ["include", "exclude"])
def test_a_pattern_that_cannot_be_read_is_named(place: str, pattern: str) -> None:
    with pytest.raises(Failure, match="cannot be read") as caught:
        Rules(**{place: [pattern]})  # type: ignore[arg-type]
    assert caught.value.code is Exit.USAGE
    assert place in str(caught.value)


def test_a_bad_line_of_the_ignore_file_matches_nothing_and_is_named() -> None:
    made = Rules(ignore_file="*.raw\n[z-a]\n*.bak\r\n")
    assert made.unread == [".dumbwaiterignore, line 2: '[z-a]' is no pattern, and matches nothing"]
    assert [made.takes(name) for name in ("a.raw", "a.bak", "z", "[z-a]")] == [False, False, True, True]


@pytest.mark.parametrize("line", ["# remark", "#" * 2000, "", " " * 2000])
def test_remarks_and_blank_lines_are_no_patterns_and_nothing_to_tell_of(line: str) -> None:
    assert Rules(ignore_file=f"{line}\n").unread == []
    assert Rules(exclude=[line]).takes("a")


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "bytes"])
def test_what_is_no_text_in_the_ignore_files_place_is_passed_by(tmp_path: Path, kind: str) -> None:
    place = tmp_path / ".dumbwaiterignore"
    match kind:
        case "pipe":
            os.mkfifo(place)
        case "folder":
            place.mkdir()
        case "device":
            place.symlink_to("/dev/zero")
        case _:
            place.write_bytes(b"\xff\xfe*")
    assert rules(str(tmp_path), (), ()).takes("a")


def test_an_ignore_file_in_another_encoding_is_read_byte_by_byte(tmp_path: Path) -> None:
    (tmp_path / ".dumbwaiterignore").write_bytes("*.log\nCaf\u00e9*\n".encode("latin-1"))
    made = rules(str(tmp_path), (), ())
    assert [made.takes(name) for name in ("a.log", "Caf\udce9.txt", "a")] == [False, False, True]


def test_nothing_is_taken_while_the_ignore_file_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / ".dumbwaiterignore").symlink_to(".dumbwaiterignore")
    made = rules(str(tmp_path), (), ())
    assert not made.takes("a")
    assert made.unread == [
        ".dumbwaiterignore cannot be read (too many levels of symbolic links): nothing is taken until it can"
    ]


def test_an_ignore_file_that_others_may_write_leaves_out_more_and_takes_nothing_back(tmp_path: Path) -> None:
    (tmp_path / ".dumbwaiterignore").write_text("!private/\n!*.key\n*.raw\n")
    (tmp_path / ".dumbwaiterignore").chmod(0o666)
    made = rules(str(tmp_path), (), ("private/", "*.key"))
    assert [made.takes(path) for path in ("a.jpg", "a.raw", "a.key", "private/a.jpg")] == [True, False, False, False]
    assert not made.enters("private")
    assert Rules(*made.texts).takes("a.key") is False
    (tmp_path / ".dumbwaiterignore").chmod(0o644)
    made = rules(str(tmp_path), (), ("private/", "*.key"))
    assert [made.takes(path) for path in ("a.jpg", "a.raw", "a.key", "private/a.jpg")] == [True, False, True, True]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's files")
def test_another_users_ignore_file_is_foreign_and_a_link_of_his_is_not_followed(tmp_path: Path) -> None:
    place = tmp_path / ".dumbwaiterignore"
    place.write_text("!*.key\n")
    os.chown(place, 4242, 4242)
    made = rules(str(tmp_path), (), ("*.key",))
    assert [made.takes(name) for name in ("a.key", "a")] == [False, True]
    os.chown(tmp_path, 4242, 4242)
    assert rules(str(tmp_path), (), ("*.key",)).takes("a.key")
    place.chmod(0o664)  # the group has other members than its owner
    assert not rules(str(tmp_path), (), ("*.key",)).takes("a.key")
    os.chown(tmp_path, 0, 0)
    place.unlink()
    (tmp_path / "private").write_text("key" * 400)
    place.symlink_to("private")
    assert rules(str(tmp_path), (), ()).unread == [
        f".dumbwaiterignore, line 1: '{('key' * 14)[:40]}…' is no pattern, and matches nothing"
    ]
    os.lchown(place, 65534, 65534)
    made = rules(str(tmp_path), (), ())
    assert made.unread == [".dumbwaiterignore cannot be read (another user's link): nothing is taken until it can"]
    assert not made.takes("a")


def test_a_link_that_comes_between_look_and_opening_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "private").write_text("key\n")
    (tmp_path / ".dumbwaiterignore").symlink_to("private")
    before = os.stat(tmp_path / "private")
    monkeypatch.setattr(os, "lstat", lambda _path: before)
    assert not rules(str(tmp_path), (), ()).takes("a")


def test_an_ignore_file_is_not_left_open(tmp_path: Path) -> None:
    (tmp_path / ".dumbwaiterignore").write_text("*.raw\n")
    rules(str(tmp_path), (), ())
    left = [one for one in Path("/proc/self/fd").iterdir() if one.is_symlink() and str(tmp_path) in os.readlink(one)]
    assert left == []


def test_of_a_large_tree_only_so_many_folders_are_remembered() -> None:
    made = Rules()
    assert all(made.enters(f"{number}") for number in range(_REMEMBERED + 1))
    assert 0 < len(made._folders) <= _REMEMBERED


def test_a_very_deep_path_is_judged() -> None:
    path = "a/" * 5000 + "b.jpg"
    assert Rules().takes(path)
    assert not Rules(exclude=["a/"]).takes(path)


def test_a_name_with_a_newline_cannot_hide_its_end() -> None:
    assert not Rules(exclude=["*.raw"]).takes("a\nb.raw")
    assert Rules(exclude=["*.raw"]).takes("a.raw\nb")


GIT = [
    ["*.raw", "!keep.raw"],
    ["a/", "!a/b"],
    ["a/*", "!a/b"],
    ["/a", "b/"],
    ["a/**", "!a/b"],
    ["**/b"],
    ["a/**/b"],
    ["*", "!*/", "!*.jpg"],
    ["/*", "!/a"],
    ["a*"],
    ["a/b/"],
    ["!a", "b"],
    ["[ab]"],
    ["a?"],
    ["\\!a", "\\#b"],
    ["a.jpg/"],
    ["a", "!a/"],
    ["*.jpg", "!a.jpg/"],
    ["**"],
    ["*/", "!b/"],
    ["[[]", "[a&&b]"],
    ["a/*/"],
    ["a**b", "*/c"],
    ["[[:digit:]]"],
    ["[![:digit:][:lower:]]*"],
    ["[[:punct:]]*", "![[:alpha:]_]", "\\[[:digit:]]"],
    ["[[:upper:]-]*", "[[:nothing:]]"],
    ["[[:graph:]][[:space:]]*"],
    ["[\\]]"],
    ["[[\\]]*"],
    ["[\\a-\\c]"],
    ["[!\\]]"],
    ["[]-b]"],
    ["[a\\]"],
    ["[!]"],
    ["[[:digit:]-z]"],
    ["c/a[!b]b"],
    ["c/a[+-5]b"],
    ["[a/]"],
    ["a/**/"],
]
PATHS = [
    *("a", "b", "c", "ab", "!a", "#b", "a.jpg", "k.raw", "keep.raw"),
    *("a/a", "a/b", "a/c", "b/a", "a.jpg/b", "a.jpg/a.jpg", "c/a", "c/b", "c/keep.raw"),
    *("5", "A", "-", "_x", "[5]", "a b", "[:digit:]", "]", "~"),
    *("a/b/c", "a/c/b", "b/a/b", "c/a/b", "a/c/d/b", "c/a.jpg/x", "c/d/a.jpg", "b/c/d"),
]


def ignored_by_git(folder: Path, patterns: list[str], paths: list[str]) -> list[str]:
    subprocess.run(["git", "init", "-q", folder], check=True)
    (folder / ".gitignore").write_text("\n".join(patterns) + "\n", encoding="utf-8")
    told = subprocess.run(
        ["git", "-C", folder, "-c", "core.excludesFile=", "check-ignore", "--no-index", "-z", "--stdin"],
        input="\0".join(paths).encode() + b"\0",
        capture_output=True,
        check=False,
    )
    ignored = set(told.stdout.decode().split("\0"))
    return [path for path in paths if path in ignored]


@pytest.mark.parametrize("patterns", GIT, ids=" ".join)
def test_agrees_with_git(tmp_path: Path, patterns: list[str]) -> None:
    rules = Rules(ignore_file="\n".join(patterns), junk=())
    assert [path for path in PATHS if not rules.takes(path)] == ignored_by_git(tmp_path, patterns, PATHS)


@pytest.mark.parametrize("name", _CLASSES)
def test_a_class_of_characters_is_what_it_is_to_git(tmp_path: Path, name: str) -> None:
    names = [f"x{chr(code)}" for code in range(1, 128) if chr(code) != "/"]
    rules = Rules(exclude=[f"x[[:{name}:]]"], junk=())
    assert [one for one in names if not rules.takes(one)] == ignored_by_git(tmp_path, [f"x[[:{name}:]]"], names)


letters = st.sampled_from([*"ab.*?![]/\\#~ \n", "\udcff", "中", "**", "/**/", ".part"])
pattern = st.lists(letters, max_size=6).map("".join).filter(lambda text: "\n" not in text)
name = st.lists(st.sampled_from([*"ab.~#\n ", "\udcff", "中", ".part"]), min_size=1, max_size=4).map("".join)
path = st.lists(name.filter(lambda text: text not in {".", ".."}), min_size=1, max_size=4).map("/".join)


@given(st.lists(pattern, max_size=3), st.lists(pattern, max_size=3), st.lists(path, min_size=1, max_size=5))
@settings(max_examples=200, deadline=None)
def test_any_rules_judge_any_path(include: list[str], exclude: list[str], paths: list[str]) -> None:
    try:
        rules = Rules(include, exclude)
    except Failure:
        return
    for path in paths:
        assert rules.takes(path) == (rules.why(path) == "taken")
        folder = path
        while folder := folder.rpartition("/")[0]:
            assert rules.enters(folder) or not rules.takes(path)


@given(path)
@settings(max_examples=100, deadline=None)
def test_without_patterns_everything_is_taken(path: str) -> None:
    assert Rules(junk=()).takes(path)


def test_every_junk_pattern_can_be_read() -> None:
    assert all(Rules(junk=[pattern]) for pattern in JUNK)


@given(st.text("ab*?/[]!", max_size=9), st.lists(st.text("ab", min_size=1, max_size=3), max_size=5))
@settings(max_examples=2000)
@pytest.mark.filterwarnings("ignore:Possible nested set:FutureWarning")
def test_a_pattern_that_never_goes_back_finds_the_same(pattern: str, names: list[str]) -> None:
    try:
        plain = GitIgnoreSpecPattern(pattern).regex
    except (ValueError, re.error):
        return
    if plain is not None:
        source, path = plain.pattern.replace("(?P<ps_d>", "(?:"), "/".join(names)
        assert bool(re.match(once(source), path, re.DOTALL)) == bool(re.match(source, path, re.DOTALL)), once(source)


@pytest.mark.parametrize(
    "pattern",
    [
        "*a" * 9 + "*b",
        "**/" + "a/**/" * 9 + "b",
        "a*" * 99 + "b",
        "[" * 60_000 + "a",
        "*" * 40 + "b",
        "?***" * 99 + "b",
        "[]a]*" * 99 + "b",
        "[a-z]**" * 99 + "b",
    ],
)
def test_no_pattern_takes_long_to_find_nothing(tmp_path: Path, pattern: str) -> None:
    """It would be for ever, and nothing else would run meanwhile."""
    (tmp_path / ".dumbwaiterignore").write_text(pattern)
    made = rules(str(tmp_path), [], [])
    assert made.takes("a" * 250)
    assert made.takes("/".join("a" * 1000))


def test_an_ignore_file_may_have_a_thousand_lines(tmp_path: Path) -> None:
    (tmp_path / ".dumbwaiterignore").write_bytes(b"b\n" * 1000)
    made = rules(str(tmp_path), [], [])
    assert [made.takes(name) for name in "ab"] == [True, False]


@pytest.mark.parametrize("content", [b"a\n" * 1001, bytes(1 << 20)])
def test_nothing_is_taken_by_an_ignore_file_that_is_too_long(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".dumbwaiterignore").write_bytes(content)
    made = rules(str(tmp_path), [], [])
    assert not made.takes("b")
    assert "it has more than 1000 lines, or 65536 bytes" in made.unread[0]
