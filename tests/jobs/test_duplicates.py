"""A file whose content its provider has already, over a real journal."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import journals
from dumbwaiter.errors import Changed
from dumbwaiter.files.digest import Digest
from dumbwaiter.jobs import duplicates
from dumbwaiter.jobs.threads import OpenFile, Threads
from dumbwaiter.model import Entry, Job, Receipt, Stamp, State
from journals import WORKER, Book

sqlite_book = journals.sqlite_book
NOW = 1000.0
CONTENT = b"the film"


@pytest.mark.parametrize("changes", [False, True])
def test_a_file_that_changes_while_its_twin_is_asked_for_is_no_twin(
    sqlite_book: Book, tmp_path: Path, changes: bool
) -> None:
    path, digest, threads = tmp_path / "copy.mov", Digest(), Threads(1, 1)
    path.write_bytes(CONTENT)
    digest.observe(0, CONTENT)
    twin = sqlite_book.named("film.mov", NOW, size=len(CONTENT))
    receipt, written = Receipt("key"), digest.text(len(CONTENT))
    sqlite_book.lease(WORKER, twin).store(NOW, receipt=receipt, digest=written, more=0, resent=0)
    sqlite_book.lease(WORKER, twin).finish(NOW, receipt=receipt)

    async def still(entry: Entry, _desk: Any) -> Receipt:
        if changes:
            path.write_bytes(CONTENT[::-1] * 2)
        return Receipt(entry.key)

    provider: Any = SimpleNamespace(name="vod", broker=SimpleNamespace(still=still))
    context: Any = SimpleNamespace(journal=sqlite_book.journal, threads=threads)
    descriptor = os.open(path, os.O_RDONLY)
    job = Job(twin + 1, "w", "copy.mov", "vod", Stamp.of(os.fstat(descriptor)), State.PENDING)
    found = duplicates.find(job, provider, OpenFile(descriptor, ""), context)
    try:
        if changes:
            with pytest.raises(Changed):
                sqlite_book.runner.run(found)
        else:
            assert sqlite_book.runner.run(found) == (Receipt("key", facts={"same_as": "w/film.mov"}), written)
    finally:
        threads.close()
        os.close(descriptor)
