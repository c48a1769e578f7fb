"""What type a file is said to have: vendors look inside, so we do."""

import os
from pathlib import Path

import pytest

from dumbwaiter.files.mime import mime_by_name, mime_of


@pytest.mark.parametrize(
    ("name", "content", "mime"),
    [
        ("photo.jpg", b"\xff\xd8\xff\xe0 and more", "image/jpeg"),
        ("photo", b"\xff\xd8\xff\xe1", "image/jpeg"),
        ("photo.jpg", b"\x89PNG\r\n\x1a\n", "image/png"),
        ("photo.jpg", b"text", "image/jpeg"),
        ("photo.jpg", b"", "image/jpeg"),
        ("moving.png", b"GIF89a", "image/gif"),
        ("letter.docx", b"PK\x03\x04", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        ("no suffix", b"anything", "application/octet-stream"),
    ],
)
def test_the_content_decides_where_it_leaves_no_doubt(tmp_path: Path, name: str, content: bytes, mime: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    fd = os.open(path, os.O_RDONLY)
    try:
        assert mime_of(fd, name) == mime
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("name", "mime"),
    [
        ("film.mov", "video/quicktime"),
        ("IMG.2026.11.JPG", "image/jpeg"),
        ("a.tar.gz", "application/gzip"),
        ("a.tgz", "application/gzip"),
        ("log.txt.gz", "application/gzip"),
        ("page.html.xz", "application/x-xz"),
        ("a.tar.bz2", "application/x-bzip2"),
        ("a.txt.Z", "application/octet-stream"),
        ("data:,a.png", "image/png"),
        (".png", "application/octet-stream"),
        ("README", "application/octet-stream"),
        ("a.b.unheard-of", "application/octet-stream"),
    ],
)
def test_a_type_is_told_by_the_last_suffixes_of_a_name(name: str, mime: str) -> None:
    assert mime_by_name(name) == mime
