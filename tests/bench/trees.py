"""Trees of many small files, and a journal that knows each of them."""

import os

from sqlalchemy import insert

from dumbwaiter.files.ignore import Rules
from dumbwaiter.files.scan import digest, rows, walk, wanted
from dumbwaiter.model import Stamp, State
from dumbwaiter.naming import join
from dumbwaiter.store.database import journal_url, writing
from dumbwaiter.store.tables import jobs, surveyed
from dumbwaiter.store.upgrade import upgrade
from dumbwaiter.watch.rescan import for_provider

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
    rules = Rules()
    with engine.begin() as connection:
        for folder, found, _ in walk(root, rules.enters, read=rows):
            files = list(wanted(folder, found, rules))
            parent = join(WATCH, folder)
            note = {"parent": parent, "files": len(files), "digest": for_provider(digest(found, rules), PROVIDER)}
            connection.execute(insert(surveyed), {"host": host, **note})
            if files:
                connection.execute(insert(jobs), [_done(host, parent, name, stamp) for name, stamp in files])
    engine.dispose()
    with open(os.path.join(state, "host"), "w", encoding="ascii") as file:
        file.write(host)


def _done(host: str, parent: str, name: str, stamp: Stamp) -> dict[str, object]:
    times = dict.fromkeys(("due_at", "created_at", "updated_at"), 1.0)
    return {
        "host": host,
        "watch": WATCH,
        "parent": parent,
        "name": name,
        "provider": PROVIDER,
        **stamp._asdict(),
        "state": State.DONE,
        "sent": stamp.size,
        **times,
    }
