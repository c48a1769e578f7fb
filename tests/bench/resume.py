"""Resume: bytes at the sink over the size of the file, when the daemon is killed (SIGKILL) ten times on the way.

Parts of 4 MiB side by side (OSS with temporary credentials) into a sink that takes its time. The goal is that a kill
costs no more than the parts in flight.
"""

import os
import tempfile
import time
from contextlib import ExitStack
from typing import Any

from tests.bench import fast_sink
from tests.bench.big_file import _fast, _make
from tests.bench.daemon import Daemon
from tests.bench.fast_sink import FastSink
from tests.bench.services import NAME, Service

KILLS = 10
PARTS = 2  # of the file at once
PART = 4 << 20
SLOW = 20  # milliseconds that a connection rests after each MiB


def run(size: int) -> dict[str, Any]:
    """Kills the daemon each time that another eleventh of the file is in, and returns what reached the sink."""
    with ExitStack() as stack:
        fast = stack.enter_context(tempfile.TemporaryDirectory(prefix="dumbwaiter-bench-", dir=_fast(size)))
        slow = stack.enter_context(tempfile.TemporaryDirectory(prefix="dumbwaiter-bench-"))
        file = os.path.join(fast, "film.bin")
        _make(file, size)
        sink = stack.enter_context(FastSink(fast_sink.build(slow), "slow", str(SLOW)))
        service = stack.enter_context(Service("oss", sink.url))
        daemon = Daemon(fast, slow, f"{service.config()}\n[limits]\nparts = {PARTS}\n", name=NAME)
        began = time.monotonic()
        for kill in range(KILLS):
            with daemon:
                if not kill:
                    daemon.take(file)
                daemon.until_sent(size * (kill + 1) // (KILLS + 1))
                daemon.kill()
        with daemon:
            daemon.until_stored(1)
        arrived = sink.arrived()
    assert arrived["bytes"] >= size
    return {
        "size": size,
        "kills": KILLS,
        "parts": PARTS,
        "seconds": time.monotonic() - began,
        "bytes": arrived["bytes"],
        "ratio": arrived["bytes"] / size,
        "limit": 1 + KILLS * PARTS * PART / size,
    }


def table(outcome: dict[str, Any]) -> str:
    """Returns the outcome as a sentence."""
    return (
        f"\n{outcome['kills']} kills, {outcome['parts']} parts of 4 MiB in flight: {outcome['ratio']:.3f} times the size "
        f"reached the sink; at most {outcome['limit']:.3f} is wanted"
    )
