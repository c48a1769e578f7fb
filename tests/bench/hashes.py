"""Content hashes as the transports reckon them: Qiniu's in two threads beside `openssl dgst -sha1`, OSS's CRC-64 beside
the compiled crcmod that oss2 uses. The file is page-cached; the CRCs are of pieces in memory.
"""

import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.bench import machine, process, turns
from tests.bench.big_file import GB, _fast, _make

from dumbwaiter.wire import oss, qiniu

QETAG, OPENSSL, CRC, CRCMOD = "qetag, 2 threads", "openssl dgst -sha1", "CRC-64", "CRC-64, crcmod"
READ = 1 << 18  # what a thread has in hand when it sends
CRC_SHARE, CRCMOD_SHARE = 1 << 31, 1 << 26  # bytes: the one takes a hundred times as long as the other


def run(size: int, rounds: int) -> dict[str, Any]:
    """Measures and returns every round, the medians and the ratios."""
    openssl = machine.require("openssl", package="openssl")
    machine.require_module("crcmod")
    with tempfile.TemporaryDirectory(prefix="dumbwaiter-bench-", dir=_fast(size)) as folder:
        file = os.path.join(folder, "film.bin")
        _make(file, size)
        cases: dict[str, Callable[[], turns.Figures]] = {
            QETAG: lambda: _timed(lambda: _qetag(file), size),
            OPENSSL: lambda: _timed(lambda: process.measure([openssl, "dgst", "-sha1", file]), size),
            CRC: lambda: _timed(_crc, CRC_SHARE),
            CRCMOD: lambda: _timed(_crcmod, CRCMOD_SHARE),
        }
        return {"size": size, **turns.summed(turns.taken(cases, rounds, "GB/s"), "GB/s")}


def table(outcome: dict[str, Any]) -> str:
    """Returns the medians as a table."""
    lines = ["", "| | GB/s |", "|---|---|"]
    lines += [f"| {name} | {one['GB/s']:.2f} |" for name, one in outcome["medians"].items()]
    return "\n".join(lines)


def _timed(work: Callable[[], Any], size: int) -> turns.Figures:
    began = time.monotonic()
    work()
    return {"GB/s": size / GB / (time.monotonic() - began)}


def _qetag(file: str) -> str:
    size = os.path.getsize(file)
    fd = os.open(file, os.O_RDONLY)

    def one(number: int) -> bytes:
        etag = qiniu.Etag()
        _read(fd, number * qiniu.BLOCK, min((number + 1) * qiniu.BLOCK, size), etag.update)
        return etag.digest()

    try:
        with ThreadPoolExecutor(2) as pool:
            return qiniu.etag_of_parts(list(pool.map(one, range(-(-size // qiniu.BLOCK)))), standard=True)
    finally:
        os.close(fd)


def _crc() -> int:
    crc, piece = oss.Crc(), bytes(READ)
    for _ in range(CRC_SHARE // READ):
        crc.update(piece)
    return crc.value


def _crcmod() -> int:
    import crcmod

    crc, piece = crcmod.Crc(0x142F0E1EBA9EA3693, initCrc=0, xorOut=0xFFFF_FFFF_FFFF_FFFF), bytes(READ)
    for _ in range(CRCMOD_SHARE // READ):
        crc.update(piece)
    return int(crc.crcValue)


def _read(fd: int, position: int, end: int, use: Callable[[memoryview], object]) -> None:
    buffer = memoryview(bytearray(READ))
    while position < end:
        count = os.preadv(fd, [buffer[: end - position]], position)
        use(buffer[:count])
        position += count
