"""Pictures that a provider takes for some."""

import random


def jpeg(extra: int = 0, seed: int = 1) -> bytes:
    """A grey pixel as a baseline JPEG (ITU-T T.81), `extra` bytes in all longer than it need be."""
    head = bytes.fromhex("ffd8 ffe0 0010 4a464946 00 0101 00 0001 0001 0000")
    tables = bytes.fromhex("ffdb 0043 00") + b"\1" * 64 + bytes.fromhex("ffc0 000b 08 0001 0001 01 011100")
    codes = b"".join(bytes.fromhex(f"ffc4 0014 {kind}") + b"\1" + bytes(16) for kind in ("00", "10"))
    scan = bytes.fromhex("ffda 0008 01 0100 003f00 3f ffd9")
    return head + tables + codes + scan + random.Random(seed).randbytes(extra)
