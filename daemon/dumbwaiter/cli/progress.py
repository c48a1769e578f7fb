"""Live bars on a terminal: files, bytes that the server acknowledged, rate, time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dumbwaiter.cli.session import Session

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

SHOWN = 12  # bars at once

Show = Callable[[list[dict[str, Any]]], None]


def live(states: Iterator[dict[str, Any]]) -> None:
    """Draws the daemon's states over one another until it ends or Ctrl-C is pressed."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    progress = _progress(Console())
    with Live(console=progress.console, auto_refresh=False) as screen:
        show = _shower(progress)
        for state in states:
            show(state["jobs"])
            totals = state["totals"]
            left = totals["pending"] + totals["stored"] + state["settling"]
            line = f"{totals['done']} done, {left} to go, {totals['rejected']} need a person"
            troubles = [one["error"] for one in state["providers"] if one["error"]]
            screen.update(Group(progress.get_renderable(), Text("\n".join([line, *troubles]))), refresh=True)


@contextmanager
def bars(session: Session) -> Iterator[Show]:
    """Yields a function that takes jobs as `report.job_facts` gives them. Draws nothing without a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if session.quiet or not console.is_terminal:
        yield lambda _jobs: None
        return
    with _progress(console) as progress:
        yield _shower(progress)


def _progress(console: "Console") -> "Progress":
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        transient=True,
    )


def _shower(progress: "Progress") -> Show:
    """Returns a function that keeps one bar for each job that moves or is in trouble."""
    tasks: dict[int, Any] = {}

    def show(jobs: list[dict[str, Any]]) -> None:
        moving = {job["id"]: job for job in [job for job in jobs if job["active"] or job["error"]][:SHOWN]}
        for number, job in moving.items():
            if number not in tasks:
                tasks[number] = progress.add_task(job["path"], total=max(job["size"], 1), note="")
            progress.update(tasks[number], completed=job["sent"] if job["size"] else 1, note=job["error"] or "")
        for number in tasks.keys() - moving.keys():
            progress.remove_task(tasks.pop(number))

    return show
