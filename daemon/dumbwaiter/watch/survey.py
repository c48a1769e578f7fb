"""Goes through a watched tree and names what each folder holds by a digest, in this process or in helpers.

A helper is a program of its own, started for one survey of a large tree: it takes none of the daemon's time, as a
thread would that asks the disk for a million files, and it runs at low priority. It reads orders (lists of folders)
from its input and writes what it found to its output, as marshalled values after their length. It sees no journal
and knows no secret, nor is one left in its environment; the daemon looks again, itself, into folders whose digest is
not the one it expects.

`python -m dumbwaiter.watch.survey` is the helper.
"""

import errno
import gc
import marshal
import os
import re
import selectors
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO, Any, NamedTuple

from dumbwaiter.files.ignore import Rules
from dumbwaiter.files.scan import Rows, digest, rows, walk

BATCH = 256  # folders in one message, or in what `take` returns
FILES = 4096  # in what `take` returns, if their rows come along
HELPERS = 2  # more wait for each other in the kernel
TREES = 64  # subtrees to share out, at least, if the tree has them
LISTED = 512  # folders that are listed here to find so many
ORDER = 16384  # characters in one order: two of them fit into a pipe, so that writing one never waits
NICE = 10
# Variables that a Python needs to find itself and to read names of files as this one does.
KEPT = re.compile(r"HOME|LANG|LC_\w+|LD_LIBRARY_PATH|LOCPATH|PATH|PYTHON\w*")
_LENGTH = 4  # bytes, in front of each value
_ENDED = "a helper ended before its work was done"


class Found(NamedTuple):
    """A folder that was gone through. A helper sends no rows."""

    folder: str
    files: int
    digest: bytes
    rows: Rows | None


class Survey:
    """One passage through a tree. `take` is for one thread, `close` for any."""

    def __init__(
        self, root: str, rules: Rules, *, large: bool, skipped: Callable[[str, OSError], None] = lambda _f, _e: None
    ) -> None:
        self._root = root
        self._rules = rules
        self._skipped = skipped
        self._closed = False
        self._helpers: list[_Helper] = []
        self._found = self._shared() if large else self._here("")

    def take(self) -> list[Found]:
        """Returns the next folders, none at the end. Raises FileNotFoundError without a root, OSError if a helper ends."""
        batch: list[Found] = []
        files = 0
        try:
            for found in self._found:
                batch.append(found)
                files += found.files if found.rows else 0
                if len(batch) >= BATCH or files >= FILES:
                    break
        except OSError:
            if not self._closed:
                raise
        return batch

    def close(self) -> None:
        """Ends the survey; `take` has nothing more."""
        self._closed = True
        for helper in self._helpers:
            helper.kill()

    def _here(
        self, folder: str, *, deep: bool = True, below: Callable[[list[str]], None] = lambda _f: None
    ) -> Iterator[Found]:
        for here, found, folders in walk(
            self._root,
            self._rules.enters,
            folder,
            read=rows,
            skipped=self._skipped,
            stop=lambda: self._closed,
            deep=deep,
        ):
            below(folders)
            yield Found(here, len(found) // 2, digest(found, self._rules), found)

    def _shared(self) -> Iterator[Found]:
        trees = deque([""])
        listed = 0
        while trees and len(trees) < TREES and listed < LISTED and not self._closed:
            listed += 1
            yield from self._here(trees.popleft(), deep=False, below=trees.extend)
        try:
            with suppress(OSError):  # no process to be had: fewer will do, or this one alone
                for _ in range(min(HELPERS, len(trees))):
                    self._helpers.append(_Helper(self._root, self._rules))
            yield from self._ask(trees)
        finally:
            for helper in self._helpers:
                helper.end()

    def _ask(self, trees: deque[str]) -> Iterator[Found]:
        """Keeps every helper at work until no tree is left."""
        most = max(1, len(trees) // (8 * HELPERS))
        with selectors.DefaultSelector() as selector:
            for helper in self._helpers:
                selector.register(helper.output, selectors.EVENT_READ, helper)
                for _ in range(2):  # one to work on and one at hand
                    helper.order(_cut(trees, most))
            while not self._closed and any(helper.orders for helper in self._helpers):
                for key, _ in selector.select():
                    batch = key.data.receive()
                    if batch is None:
                        key.data.order(_cut(trees, most))
                        continue
                    for folder, files, what in batch:
                        if isinstance(what, bytes):
                            yield Found(folder, files, what, None)
                        else:
                            self._skipped(folder, OSError(what, os.strerror(what)))
        for tree in trees:  # too long for an order, or nobody to give it to
            yield from self._here(tree)


class _Helper:
    """A helper and how many orders it has. Raises OSError where it is started, or has ended."""

    def __init__(self, root: str, rules: Rules) -> None:
        command = [sys.executable, "-X", "utf8", "-P", "-m", __name__]
        self.orders = 0
        environment = {name: value for name, value in os.environ.items() if KEPT.fullmatch(name)}
        self._process = subprocess.Popen(
            command, bufsize=0, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input: IO[bytes] = self._process.stdin
        self.output: IO[bytes] = self._process.stdout
        self._send((root, rules.texts))

    def order(self, trees: list[str]) -> None:
        if trees:
            self.orders += 1
            self._send(trees)

    def _send(self, value: Any) -> None:
        try:
            _put(self._input, value)
        except BrokenPipeError:
            raise OSError(errno.ECHILD, _ENDED) from None

    def receive(self) -> list[tuple[str, int, bytes | int]] | None:
        """Returns a batch (folder, files, digest or errno), None when an order is done."""
        batch: list[tuple[str, int, bytes | int]] | None = _get(self.output)
        if batch is None:
            self.orders -= 1
        return batch

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        self._process.kill()
        self._input.close()
        self.output.close()
        self._process.wait()


def _cut(trees: deque[str], most: int) -> list[str]:
    """Takes trees for one order. One whose path alone is too long stays."""
    order: list[str] = []
    room = ORDER
    while trees and len(order) < most and room >= len(trees[0]):
        room -= len(trees[0])
        order.append(trees.popleft())
    return order


def _put(pipe: IO[bytes], value: Any) -> None:
    text = marshal.dumps(value)
    whole = memoryview(len(text).to_bytes(_LENGTH) + text)
    while whole:
        whole = whole[pipe.write(whole) :]


def _get(pipe: IO[bytes]) -> Any:
    """Raises OSError when the other side has ended."""
    text = _exactly(pipe, int.from_bytes(_exactly(pipe, _LENGTH)))
    return marshal.loads(text)  # noqa: S302 - what the other half of this module wrote


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = pipe.read(size - len(data))
        if not more:
            raise OSError(errno.ECHILD, _ENDED)
        data += more
    return data


def main() -> None:
    """Runs the helper, until its input ends."""
    with suppress(OSError):  # a service may not ask for it
        os.nice(NICE)
    gc.disable()  # it makes no cycles, and a million rows
    with suppress(OSError), open(0, "rb", buffering=0) as orders, open(1, "wb", buffering=0) as output:
        root, texts = _get(orders)
        rules = Rules(*texts)
        while True:
            _obey(root, rules, _get(orders), output)
            _put(output, None)


def _obey(root: str, rules: Rules, trees: list[str], output: IO[bytes]) -> None:
    batch: list[tuple[str, int, bytes | int]] = []

    def skipped(folder: str, error: OSError) -> None:
        batch.append((folder, 0, error.errno or errno.EIO))

    for tree in trees:
        for here, found, _ in walk(root, rules.enters, tree, read=rows, skipped=skipped):
            batch.append((here, len(found) // 2, digest(found, rules)))
            if len(batch) >= BATCH:
                _put(output, batch)
                batch.clear()
    _put(output, batch)


if __name__ == "__main__":
    main()
