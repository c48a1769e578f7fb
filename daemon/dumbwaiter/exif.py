"""What a camera wrote into a picture. A file may say anything of itself, so little of it is read."""

import logging
from typing import Any, BinaryIO

SIP, ALL = 1 << 20, 1 << 24  # bytes that are read at once, and together, at most


class _Sips:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = ALL
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        self._left -= size
        if not 0 <= size <= SIP or self._left < 0:
            raise ValueError("no camera writes so much")
        return self._file.read(size)


def tags(file: BinaryIO) -> dict[str, Any]:
    """Returns the tags of an open picture, none for what is no picture or a damaged one."""
    import exifread  # only where somebody asks

    logging.getLogger("exifread").setLevel(logging.CRITICAL)  # a file that is no picture is no news
    sips: Any = _Sips(file)
    try:
        found: dict[str, Any] = exifread.process_file(sips, details=False)
    except Exception:  # noqa: BLE001 - a damaged picture may break the library in any way
        return {}
    return found
