"""Live bars on a terminal: files, bytes that the server acknowledged, rate, time left. No name is cut, however narrow it is."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dumbwaiter.cli.session import Session
from dumbwaiter.cli.words import place, rests, size, to_put_away
from dumbwaiter.naming import counted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

SHOWN = 12  # bars at once, where the terminal is high enough
LINES = 3  # of one bar: name, bar, trouble
ROOM = 6  # lines for the sum, and for what is wrong elsewhere

Show = Callable[[list[dict[str, Any]]], None]


def live(states: Iterator[dict[str, Any]]) -> None:
    """Draws the daemon's states over one another until it ends or Ctrl-C is pressed."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    progress = _progress(Console())
    everything = None
    with Live(console=progress.console, auto_refresh=False, vertical_overflow="visible") as screen:
        show = _shower(progress)
        for state in states:
            show(state["jobs"])
            sent, left = state["totals"]["bytes_sent"], state["totals"]["bytes_left"]
            if everything is None:
                begun, everything = sent, progress.add_task("", total=None, note="")
            progress.update(
                everything,
                completed=sent - begun,
                total=sent - begun + left,
                visible=left > 0,
                description="everything",
            )
            screen.update(Group(progress.get_renderable(), Text("\n".join(_sentences(state)))), refresh=True)


def _sentences(state: dict[str, Any]) -> Iterator[str]:
    totals = state["totals"]
    left = totals["pending"] + totals["stored"] + state["settling"]
    yield f"{counted(totals['done'], 'file')} done, {left} to go, {to_put_away(totals)}{totals['in_need']} need a person; {size(totals['bytes_left'])} left"
    yield from (rests(pause["name"], pause["until"]) for pause in state["paused"])
    yield from (f"! {one['name']}: {one['error']}" for one in state["providers"] if one["error"])
    if state["trouble"]:
        yield f"! {state['trouble']}"


@contextmanager
def bars(session: Session) -> Iterator[Show]:
    """Yields a function that takes jobs as `facts.job_facts` gives them. Draws nothing without a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if session.quiet or not console.is_terminal:
        yield lambda _jobs: None
        return
    with _progress(console) as progress:
        show, everything = _shower(progress), progress.add_task("", total=None, visible=False, note="")

        def summed(jobs: list[dict[str, Any]]) -> None:
            show(jobs)
            if len(jobs) > 1:
                sent, whole = sum(job["sent"] for job in jobs), sum(job["size"] for job in jobs)
                done = sum(job["state"] == "done" for job in jobs)
                named = f"{done} of {counted(len(jobs), 'file')}"
                progress.update(everything, completed=sent, total=whole, visible=True, description=named)

        yield summed


def _progress(console: "Console") -> "Progress":
    from rich.console import RenderableType
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.text import Text

    class Bars(Progress):
        """A bar below each name: beside it there would be no room for both."""

        def get_renderables(self) -> Iterable[RenderableType]:
            for task in self.tasks:
                if task.visible:
                    yield Text(task.description, overflow="fold")
                    yield self.make_tasks_table([task])
                    if note := task.fields["note"]:
                        yield Text(f"  {note}", overflow="fold")

    return Bars(
        TextColumn(" "),
        BarColumn(bar_width=16),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def _shower(progress: "Progress") -> Show:
    """Returns a function that keeps one bar for each job that moves or is in trouble."""
    tasks: dict[int, Any] = {}
    shown = max(1, min(SHOWN, (progress.console.height - ROOM) // LINES))

    def show(jobs: list[dict[str, Any]]) -> None:
        moving = {job["id"]: job for job in [job for job in jobs if job["active"] or job["error"]][:shown]}
        for number, job in moving.items():
            if number not in tasks:
                tasks[number] = progress.add_task(place(job), total=job["size"], completed=job["sent"], note="")
            progress.update(tasks[number], completed=job["sent"], note=job["error"] or "")
        for number in tasks.keys() - moving.keys():
            progress.remove_task(tasks.pop(number))

    return show
