"""A mount outlives what is done to the journal's schema: whoever reads goes on reading, from the same process."""

import os
import random
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import text

import journals
from dumbwaiter.model import MIB
from dumbwaiter.store.database import journal_url, writing
from dumbwaiter.store.tables import SCHEMA
from dumbwaiter.store.upgrade import revision
from fs.world import Mounted, Origin, Shelf, until

pytestmark = pytest.mark.fuse

BODY = random.Random(5).randbytes(3 * MIB)
ENTRY = """
INSERT INTO entries (host, provider, key, key_parent, key_name, watch, parent, name, current, inode, size, mtime_ns,
ctime_ns, etag, url, verified, facts, stored_at)
VALUES ('h', 'p', 'k', :parent, :name, 'w', :parent, :name, true, 0, :size, 3, 4, '', :url, '', '{}', 5.0)
"""


def older(shelf: Shelf, version: str, url: str) -> None:
    """Makes a journal as an older program left it, with one file in it."""
    engine = journals.migrated(journal_url(shelf.state), version)
    with engine.begin() as connection:
        connection.execute(text(ENTRY), {"parent": b"w", "name": b"old", "size": len(BODY), "url": url})
    engine.dispose()


def daemon_migrates(shelf: Shelf) -> None:
    """Runs the real daemon until it serves; it has nothing to upload."""
    daemon = subprocess.Popen(
        [sys.executable, "-m", "dumbwaiter", "run"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={
            **os.environ,
            "DUMBWAITER_CONFIG": shelf.config,
            "DUMBWAITER_STATE": shelf.state,
            "DUMBWAITER_CACHE": f"{shelf.root}/cache",
            "NONE": "a secret",
        },
    )
    try:
        until(lambda: schema(shelf) == SCHEMA or daemon.poll() is not None)
        daemon.send_signal(signal.SIGTERM)
        _, said = daemon.communicate(timeout=30)
        assert daemon.returncode == 0, said.decode()
    finally:
        if daemon.poll() is None:
            daemon.kill()
            daemon.communicate()


def schema(shelf: Shelf) -> str | None:
    engine = writing(journal_url(shelf.state))
    try:
        with engine.begin() as connection:
            return revision(connection)
    finally:
        engine.dispose()


@pytest.mark.parametrize("version", ["0001", "0004", "0006"])
@pytest.mark.parametrize("session", ["fast", "fusepy"])
def test_a_daemon_migrates_under_a_mount(tmp_path: Path, origin: Origin, session: str, version: str) -> None:
    shelf = Shelf(os.path.realpath(tmp_path), journal=False)
    shelf.choose(session)
    older(shelf, version, origin.put("old", BODY))
    mounted = Mounted(shelf)
    try:
        mounted.wait()
        assert os.listdir(mounted.at("files/w")) == ["old"]
        assert os.stat(mounted.at("files/w/old")).st_size == len(BODY)
        with ExitStack() as stack:
            if version < "0005":  # it lacks what is told of an entry today
                with pytest.raises(OSError, match=r"\[Errno 5\]"):
                    mounted.read("files/w/old")
                daemon_migrates(shelf)
            else:
                file = stack.enter_context(open(mounted.at("files/w/old"), "rb", buffering=0))
                assert file.read(10) == BODY[:10]
                daemon_migrates(shelf)
                assert file.read() == BODY[10:]
        assert schema(shelf) == SCHEMA
        assert mounted.read("files/w/old") == mounted.read("keys/w/old") == BODY
        shelf.create()
        shelf.entry("new", 3, url=origin.put("new", b"new"))
        assert sorted(os.listdir(mounted.at("files/w"))) == ["new", "old"]
        assert mounted.read("files/w/new") == b"new"
        assert mounted.stop() == 0
    finally:
        mounted.clear()
        shelf.close()
