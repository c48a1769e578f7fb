"""What type a file is said to have: vendors look inside, so we do."""

import os
from pathlib import Path

import pytest

from dumbwaiter.upload import mime_of


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
