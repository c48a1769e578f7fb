"""What the daemon says of itself."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from dumbwaiter import report
from dumbwaiter.app import App
from dumbwaiter.model import Sighting
from inside import daemon, put, status, until
from program import PATIENCE, Vendors


def left(facts: dict[str, Any]) -> int:
    return int(facts["settling"] + facts["totals"]["pending"])


async def sight(app: App) -> None:
    app.intake.sight([Sighting("netease", "a.bin", closed=True)])


async def settled(app: App) -> None:
    async with asyncio.timeout(PATIENCE):
        while app.intake.waiting:
            await app.intake.turn()


@pytest.mark.parametrize("way", ["into the journal", "out of it"])
def test_a_file_that_changes_hands_while_it_is_counted_is_never_nothing_left(
    vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """One that changes while it is sent comes back from the journal, and is there again once it is quiet."""
    (Path(vendors.sandbox.data) / "drop/netease/a.bin").write_bytes(b"a")

    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            app.engine.only = ()  # it is counted, and not sent
            loop = asyncio.get_running_loop()

            def follow(name: str, step: Callable[[App], Coroutine[Any, Any, None]]) -> None:
                """Has something happen right after the journal was asked."""
                look = getattr(report, name)

                def followed(*values: Any, **named: Any) -> Any:
                    monkeypatch.setattr(report, name, look)
                    found = look(*values, **named)
                    asyncio.run_coroutine_threadsafe(step(app), loop).result(PATIENCE)
                    return found

                monkeypatch.setattr(report, name, followed)

            assert left(await status(app)) == 0
            if way == "into the journal":
                await sight(app)
                follow("work_to_list", settled)
            else:
                follow("work_to_list", sight)
            assert left(await status(app)) == 1
            await until(lambda facts: facts["totals"]["pending"] == 1, app)

    asyncio.run(test())


def test_jobs_are_counted_anew_only_when_one_of_them_moved(
    vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[Any] = []
    count = report.count_all
    monkeypatch.setattr(report, "count_all", lambda engine: counted.append(engine) or count(engine))

    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            await put(app, "netease", tmp_path / "a.bin", b"a")
            await until(lambda facts: facts["totals"]["done"] == 1, app)
            async with asyncio.timeout(PATIENCE):
                while counted:  # what follows the end of a job may move it once more
                    counted.clear()
                    await status(app)
            await put(app, "netease", tmp_path / "b.bin", b"b")
            facts = await status(app)
            assert counted
            assert left(facts) + facts["totals"]["stored"] + facts["totals"]["done"] == 2

    asyncio.run(test())


def test_parts_that_are_slow_one_after_another_have_one_patience_together(
    vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service manager kills what it does not hear of in time."""

    async def slow() -> None:
        await asyncio.sleep(0.3)

    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            monkeypatch.setattr(app, "_ask_journal", slow)
            monkeypatch.setattr(app.engine, "turn", slow)
            assert await app.stuck(0.5) == "engine"

    asyncio.run(test())


def test_who_ends_the_look_at_what_is_stuck_ends_it_at_any_turn_of_the_loop(
    vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service manager's watchdog is told again and again; a teller that went on would keep the daemon running."""

    async def at_once() -> None:
        pass

    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            monkeypatch.setattr(app, "_ask_journal", at_once)
            monkeypatch.setattr(app.engine, "turn", at_once)
            for turns in range(200):
                look = asyncio.create_task(app.stuck(PATIENCE))
                for _ in range(turns):
                    await asyncio.sleep(0)
                if not look.cancel():
                    assert look.result() == ""
                    break
                await asyncio.wait([look])
                assert look.cancelled(), turns

    asyncio.run(test())
