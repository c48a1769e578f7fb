"""The whole program on a journal in PostgreSQL."""

import os
import uuid

from sqlalchemy import URL

import journals
from dumbwaiter.model import MIB
from program import Program, digest

postgres = journals.postgres


def test_a_shared_journal_keeps_jobs_and_catalog(program: Program, postgres: URL) -> None:
    name = f"t{uuid.uuid4().hex}"
    journals._order(postgres, f"CREATE DATABASE {name}")
    url = postgres.set(database=name).render_as_string(hide_password=False)
    program.config.write_text(f'journal = "{url}"\n{program.config.read_text()}')
    contents = {"film.mov": os.urandom(9 * MIB), os.fsdecode(b"odd \xff.bin"): b"odd"}
    program.vendors.faults("nos.put:cut-after@2")
    program.start()
    for path, content in contents.items():
        program.write(path, content)
    assert program("wait").returncode == 0
    assert set(program.stored().values()) == {digest(content) for content in contents.values()}
    program.kill()
    assert not (program.state / "journal.db").exists()
    program.start()
    assert program("wait").returncode == 0
    assert program.totals()["done"] == 2
    assert program.stop() == 0
