"""The raw sink as a process of its own, so that it shares no interpreter with what measures."""

import json
import os
import select
import subprocess
import sys
from typing import Any, Self

from tests.bench import process


class SinkProcess:
    """Runs inside `with`."""

    def __enter__(self) -> Self:
        self._process = process.start([sys.executable, "-m", "tests.bench.nos_sink"], stdout=subprocess.PIPE)
        try:
            self.url = self._line().removeprefix("ready ")
            assert self.url.startswith("http://"), self.url
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        process.end(self._process)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def ready(self, seconds: float) -> bool:
        """Waits until a complete object can be told of, and returns whether one can."""
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], seconds)[0])

    def arrival(self) -> dict[str, Any]:
        """Returns what came of the object that was completed next; see `tests.bench.nos_sink.Arrival`."""
        arrival: dict[str, Any] = json.loads(self._line())
        return arrival

    @property
    def cpu(self) -> float:
        return process.cpu(self._process.pid)

    def _line(self) -> str:
        # One byte at a time: what a buffer holds, `ready` would not see.
        assert self._process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            piece = os.read(self._process.stdout.fileno(), 1)
            if not piece:
                raise RuntimeError("the sink has ended")
            line += piece
        return line.decode().rstrip("\n")
