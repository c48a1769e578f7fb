"""Key templates: the same key at every attempt, one that any provider takes, and a sentence for what is no template."""

import hashlib
import io
import os
import struct
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.config.file import parse
from dumbwaiter.errors import Failure
from dumbwaiter.files import exif
from dumbwaiter.keys import FIELDS, KEY_MAX, NUMBERED, PATH, Subject, Template, fitted, further

MOMENT = time.mktime((2026, 3, 4, 5, 6, 7, 0, 0, -1))
PATHS = st.lists(
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=90),
    min_size=1,
    max_size=12,
).map("/".join)


@contextmanager
def opened(path: Path, content: bytes = b"content") -> Iterator[int]:
    path.write_bytes(content)
    os.utime(path, (MOMENT, MOMENT))
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    with opened(tmp_path / "content") as descriptor:
        yield descriptor


def key(template: str, path: str, fd: int, seed: str = "seed", watch: str = "photos") -> str:
    return Template(template).key(Subject(watch, path, fd, MOMENT, seed))


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        ("{dir}/{stem}{suffix}", "trips/rome/day one.tar.gz"),
        ("{watch}/{name}", "photos/day one.tar.gz"),
        ("{dir2}-{dir1}/{dir3}/{stem}", "rome-trips/day one.tar"),
        ("{date}/{time}-{name}", "2026-03-04/050607-day one.tar.gz"),
        ("{date:%Y/%m}/{name}", "2026/03/day one.tar.gz"),
        ("{mtime}/{exif:%H}/{name}", "2026-03-04/05/day one.tar.gz"),
        ("{hash:8}{suffix}", hashlib.sha256(b"content").hexdigest()[:8] + ".gz"),
        ("{{{stem}}}", "{day one.tar}"),
        ("../{dir}/./{name}", "__/trips/rome/_/day one.tar.gz"),
    ],
)
def test_a_template_says_what_a_file_is_called(fd: int, template: str, wanted: str) -> None:
    assert key(template, "trips/rome/day one.tar.gz", fd) == wanted


@pytest.mark.parametrize(("seconds", "year"), [(253402300800, "9999"), (10**12, "9999"), (-(10**11), "1")])
def test_a_date_that_no_calendar_has_is_the_nearest_that_one_has(seconds: int, year: str) -> None:
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        os.utime(file.fileno(), (0, seconds))
        assert key("{mtime:%Y}/{name}", "a", file.fileno()).lstrip("0") == f"{year}/a"


def test_a_file_at_the_top_has_no_empty_level_and_a_dot_file_no_suffix(fd: int) -> None:
    assert key("{dir}/{stem}{suffix}", "film.mov", fd) == "film.mov"
    assert key("{stem}|{suffix}", "a/.profile", fd) == ".profile|"


def test_a_uuid_is_the_jobs_own_and_stays(fd: int) -> None:
    assert key("{uuid}", "a", fd) == key("{uuid}", "a", fd)
    assert key("{uuid}", "a", fd) != key("{uuid}", "a", fd, seed="other")


def test_a_photograph_tells_when_it_was_taken(tmp_path: Path) -> None:
    with opened(tmp_path / "p.jpg", photograph("2019:12:31 23:59:58")) as fd:
        assert key("{exif:%Y-%m-%d %H%M%S}{suffix}{stem}", "p.jpg", fd) == "2019-12-31 235958.jpgp"
    for broken in (photograph("yesterday at noon.."), photograph("2019:12:31 23:59:58")[:40], b"\xff\xd8\xff\xe1"):
        with opened(tmp_path / "p.jpg", broken) as fd:
            assert key("{exif}/{stem}", "p.jpg", fd) == "2026-03-04/p"


def test_a_photograph_in_heic_tells_when_it_was_taken(tmp_path: Path) -> None:
    item = struct.pack(">HHHII", 1, 0, 1, 1000, 100)
    locations = struct.pack(">IBBH", 0, 0x44, 0, 1) + item
    with opened(tmp_path / "p.heic", heic(locations).ljust(1000, b"\0") + struct.pack(">I", 6) + exif_of(TAKEN)) as fd:
        assert key("{exif}/{stem}", "p.heic", fd) == "2019-12-31/p"


TAKEN = "2019:12:31 23:59:58"


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def heic(locations: bytes, *, name: bytes = b"\0") -> bytes:
    """The head of an HEIC file with one item, the tags."""
    entry = box(b"infe", struct.pack(">IHH4s", 2 << 24, 1, 0, b"Exif") + name)
    items = box(b"iinf", struct.pack(">IH", 0, 1) + entry)
    meta = box(b"meta", bytes(4) + items + box(b"iloc", locations))
    return box(b"ftyp", b"heic" + bytes(4) + b"mif1") + meta


@pytest.mark.parametrize(
    "picture",
    [
        # 65,535 places that take no bytes, in each of 20 items
        heic(
            struct.pack(">IBBI", 2 << 24, 0, 0, 20)
            + b"".join(struct.pack(">IHHH", item, 0, 0, 65535) for item in range(20))
        ),
        # a size of 0 in 64 bits: the box is followed by itself
        box(b"ftyp", b"heic" + bytes(4) + b"mif1") + struct.pack(">I4sQ", 1, b"free", 0),
        heic(b"", name=b"x" * 2_000_000),  # read letter by letter
    ],
    ids=["places", "loop", "name"],
)
def test_a_picture_that_never_ends_takes_neither_memory_nor_time(picture: bytes) -> None:
    assert exif.tags(io.BytesIO(b"")) == {}  # the library is there
    began = time.thread_time()
    assert exif.tags(io.BytesIO(picture)) == {}
    assert time.thread_time() - began < 2 * exif.PATIENCE
    tracemalloc.start()
    try:
        exif.tags(io.BytesIO(picture))
        assert tracemalloc.get_traced_memory()[1] < 40 * 2**20
    finally:
        tracemalloc.stop()


def photograph(taken: str) -> bytes:
    """A JPEG with nothing in it but DateTimeOriginal."""
    body = exif_of(taken)
    return b"\xff\xd8\xff\xe1" + struct.pack(">H", len(body) + 2) + body + b"\xff\xd9"


def exif_of(taken: str) -> bytes:
    entry = struct.pack("<HHII", 0x9003, 2, 20, 44)
    tiff = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x8769, 4, 1, 26, 0) + struct.pack("<H", 1) + entry + b"\0\0\0\0"
    return b"Exif\0\0" + tiff + taken.encode().ljust(20, b"\0")


@given(PATHS, st.sampled_from(["{dir}/{name}", "{dir1}/{dir9}{stem}{suffix}", "{watch}/{dir}/{dir}/{name}"]))
def test_any_name_gives_a_key_that_every_provider_takes(path: str, template: str) -> None:
    fd = os.open(__file__, os.O_RDONLY)
    try:
        made = key(template, path, fd)
    finally:
        os.close(fd)
    assert 0 < len(made.encode()) <= KEY_MAX
    assert made.isprintable() or not set(map(ord, made)) & {*range(32), 0x5C, *range(0x7F, 0xA0)}
    for level in made.split("/"):
        assert level not in {"", ".", ".."}
        assert len(level.encode()) <= 255
    assert fitted(made) == made


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=800, max_size=900), st.sampled_from([".mov", ".jpeg"])
)
def test_what_is_cut_keeps_its_suffix_and_differs_from_what_is_cut_alike(text: str, suffix: str) -> None:
    one, other = fitted(text.replace("/", "_") + "1" + suffix), fitted(text.replace("/", "_") + "2" + suffix)
    assert one != other
    assert one.endswith(suffix)
    assert other.endswith(suffix)


@given(PATHS)
def test_further_names_differ_keep_their_folder_and_end(path: str) -> None:
    base = fitted(path)
    names = [further(base, number, "00112233445566") for number in range(1, NUMBERED + 2)]
    assert len({base, *names}) == len(names) + 1
    assert further(base, NUMBERED + 2, "00112233445566") is None


def test_further_names_read_as_people_write_them() -> None:
    assert further("a/film.mov", 1, "s") == "a/film-1.mov"
    assert further("a.b/film", 2, "s") == "a.b/film-2"
    assert further("film.mov", NUMBERED + 1, "0123456789abcdef") == "film-0123456789ab.mov"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{dir}/{stm}", "did you mean {stem}?"),
        ("{nothing at all}", "known: dir, dir1 … dir9, stem, "),
        ("{stem", "is no template"),
        ("{stem!r}", "{stem!r} is not known"),
        ("{stem:>9}", "{stem:>9} is not known"),
        ("{hash:2}", "from 4 to 64"),
        ("{date:%Q}{stem}", "strftime"),
        ("{date}/{dir}", "gives different files one key"),
        ("{}", "unknown field {}"),
    ],
)
def test_what_is_no_template_is_said_with_line_and_key(template: str, says: str) -> None:
    with pytest.raises(Failure) as failure:
        parse(config(template), "config.toml")
    assert "config.toml, line 9: [watch.w.key]" in str(failure.value)
    assert says in str(failure.value)


def config(template: str, request: str = "{key}") -> str:
    return f"""[provider.p]
broker = "recipe"
transport = "put"
request = {{ url = "https://a.example/{request}" }}
reply = {{ url = "url" }}
[watch.w]
path = "/srv/w"
provider = "p"
key = "{template}"
"""


def test_a_provider_that_names_objects_takes_no_template() -> None:
    with pytest.raises(Failure, match=r"line 9: \[watch.w.key\] cannot be said for provider.p: .* \{key\}"):
        parse(config("{stem}", "{name}"), "config.toml")
    for broker in (
        'broker = "netease"\napp_key = "k"\napp_secret = "s"',
        'broker = "jimeng"\nrefresh_token = "t"',
        'broker = "jiandaoyun"\napi_key = "k"\napp_id = "a"\nentry_id = "e"',
        'broker = "careyshop"\napi = "https://a"\napp_key = "k"\napp_secret = "s"\nusername = "u"\npassword = "p"',
    ):
        with pytest.raises(Failure, match=r"\[watch.w.key\] cannot be said"):
            parse(f'[provider.p]\n{broker}\n[watch.w]\npath = "/w"\nprovider = "p"\nkey = "{{stem}}"\n', "config.toml")


def test_a_template_that_only_spells_out_the_path_may_stand_anywhere() -> None:
    text = '[provider.p]\nbroker = "netease"\napp_key = "k"\napp_secret = "s"\n[watch.w]\npath = "/w"\nprovider = "p"\n'
    assert parse(f'{text}key = "{PATH}"\n', "config.toml").watch == parse(text, "config.toml").watch


def test_every_field_is_in_the_reference() -> None:
    page = (Path(__file__).parents[1] / "docs/reference.md").read_text()
    for field in FIELDS:
        assert f"`{{{field}}}`" in page or (field.startswith("dir") and "`{dir1}` … `{dir9}`" in page), field


def test_no_picture_has_more_read_than_a_camera_writes() -> None:
    class Watched(io.BytesIO):
        most = 0

        def read(self, size: int | None = -1) -> bytes:
            self.most = max(self.most, len(self.getbuffer()) if size is None or size < 0 else size)
            return super().read(size)

    # TIFF: one directory with one text of 64 MiB (tag, type, count, place).
    whole = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x10E, 2, 64 * 2**20, 30, 0)
    picture = Watched(whole.ljust(8 * 2**20, b"x"))
    assert not exif.tags(picture).get("EXIF DateTimeOriginal")
    assert 0 < picture.most <= exif.SIP


def test_of_a_picture_so_much_is_read_and_no_more() -> None:
    sips = exif._Sips(io.BytesIO(bytes(exif.ALL + 1)))
    for size in (-1, exif.SIP + 1):
        with pytest.raises(ValueError, match="so much"):
            sips.read(size)
    sips = exif._Sips(io.BytesIO(bytes(exif.ALL + 1)))
    for _ in range(exif.ALL // exif.SIP):
        assert len(sips.read(exif.SIP)) == exif.SIP
    with pytest.raises(ValueError, match="so much"):
        sips.read(1)
