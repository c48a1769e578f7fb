"""What a camera wrote into a picture. A file may say anything of itself, so little of it is read."""

import logging
import time
from typing import Any, BinaryIO

SIP, ALL = 1 << 20, 1 << 24  # bytes that are read at once, and together, at most
READS = 1 << 18  # the library makes something of each
PATIENCE = 0.5  # seconds of computing


class _Sips:
    """A file whose reading has an end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = ALL
        self._reads = READS
        self._end = time.thread_time() + PATIENCE
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        self._left -= size
        self._reads -= 1
        if not 0 <= size <= SIP or self._left < 0 or self._reads < 0 or time.thread_time() > self._end:
            raise ValueError("no camera writes so much")
        piece = self._file.read(size)
        if piece == b"iloc":
            self._locations()
        return piece

    def _locations(self) -> None:
        """Refuses a box of HEIC's with places that take no bytes: as many as it claims are listed without a read."""
        place = self.tell()
        _, sizes = self._file.read(4), self._file.read(1)
        self.seek(place)
        if sizes and sizes[0] >> 4 == 0:  # and where the tags are could not be said in it
            raise ValueError("no camera writes so little")


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
