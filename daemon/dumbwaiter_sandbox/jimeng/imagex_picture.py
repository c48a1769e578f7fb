"""What ImageX says of a picture, from its first bytes: format, width and height of PNG, GIF, JPEG and WebP.

The formats' own specifications: PNG (IHDR), GIF89a (logical screen), JPEG (SOF segments), WebP (VP8X, VP8L, VP8 chunks).
"""

import struct

HEAD = 256 * 1024  # bytes in which a JPEG has its size
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})


def picture(head: bytes) -> tuple[str, int, int] | None:
    """Format, width and height; None for what is no picture."""
    try:
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            return ("png", *struct.unpack(">II", head[16:24]))
        if head[:6] in (b"GIF87a", b"GIF89a"):
            return ("gif", *struct.unpack("<HH", head[6:10]))
        if head.startswith(b"\xff\xd8\xff"):
            return ("jpeg", *_jpeg(head))
        if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
            return ("webp", *_webp(head))
    except (struct.error, IndexError):
        return None
    return None


def _jpeg(head: bytes) -> tuple[int, int]:
    at = 2
    while True:
        marker, length = struct.unpack(">xBH", head[at : at + 4])
        if marker in _FRAMES:
            height, width = struct.unpack(">HH", head[at + 5 : at + 9])
            return width, height
        at += 2 + length


def _webp(head: bytes) -> tuple[int, int]:
    kind = head[12:16]
    if kind == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack("<HH", head[26:30])
    return width & 0x3FFF, height & 0x3FFF
