"""Trees of many small files, and a journal that knows each of them."""

import asyncio
import os
import sqlite3
from contextlib import closing

from dumbwaiter.folders import Surveyed
from dumbwaiter.ignore import Rules
from dumbwaiter.journal import Candidate, Journal
from dumbwaiter.model import Stamp
from dumbwaiter.naming import join
from dumbwaiter.scan import digest, rows, walk, wanted
from dumbwaiter.store.database import Writer, journal_url, reading, writing
from dumbwaiter.store.upgrade import upgrade

EACH = 100  # files in a folder
WATCH, PROVIDER = "bench", "netease"


def make(root: str, files: int) -> None:
    """Makes folders of 100 files each, 100 folders in a folder."""
    for number in range(0, files, EACH):
        folder = os.path.join(root, f"{number // EACH // 100:03}", f"{number // EACH:05}")
        os.makedirs(folder)
        for each in range(EACH):
            os.close(os.open(os.path.join(folder, f"file-{each:03}.dat"), os.O_CREAT | os.O_WRONLY, 0o600))


def known(state: str, root: str, host: str) -> None:
    """Makes a journal in which every file of the tree is done, as after the scan that found it so."""
    os.makedirs(state, exist_ok=True)
    url = journal_url(state)
    engine = writing(url)
    upgrade(engine)
    writer, reader = Writer(engine), reading(url)
    rules = Rules()

    async def fill() -> None:
        journal = Journal(writer, host, reader)
        for folder, found, _ in walk(root, rules.enters, read=rows):
            files: list[tuple[str, Stamp]] = list(wanted(folder, found, rules))
            jobs = [Candidate(WATCH, join(folder, name), PROVIDER, stamp) for name, stamp in files]
            await journal.enqueue(jobs, 1.0, durable=False)
            await journal.survey(WATCH, [Surveyed(folder, len(files), digest(found, rules))])

    asyncio.run(fill())
    reader.dispose()
    writer.close()
    with closing(sqlite3.connect(os.path.join(state, "journal.db"))) as database:
        database.execute("UPDATE jobs SET state = 'done', sent = size")
        database.commit()
    with open(os.path.join(state, "host"), "w", encoding="ascii") as file:
        file.write(host)
