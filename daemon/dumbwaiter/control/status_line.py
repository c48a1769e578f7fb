"""What systemd shows of the daemon: one sentence that follows what it does.

The sentence is looked at when something moved, and sent when it says something else.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import suppress

from dumbwaiter import report
from dumbwaiter.app import App
from dumbwaiter.errors import JournalTrouble
from dumbwaiter.facts import AFTER, IN_NEED
from dumbwaiter.model import State
from dumbwaiter.naming import counted

PACE = 2.0  # seconds between two looks


async def tell(app: App, notify: Callable[[str], None]) -> None:
    """Sends STATUS= for as long as it runs; nothing when no service manager listens."""
    said = ""
    while os.environ.get("NOTIFY_SOCKET"):
        beat = app.pulse.next()
        with suppress(JournalTrouble):  # the engine says it, too
            left = await asyncio.to_thread(report.count_unfinished, app.reader)
            if (sentence := _sentence(app, left)) != said:
                said = sentence
                notify(f"STATUS={sentence}")
        await asyncio.gather(beat.wait(), asyncio.sleep(PACE))


def _sentence(app: App, left: Mapping[str, int]) -> str:
    """Returns what is going on, the worst first."""
    if app.trouble:
        return app.trouble
    parts = [f"provider {name}: {one.health.trouble}" for name, one in app.providers.items() if one.health.blocked]
    parts += [f"{name}: {one.sentence}" for name, one in app.watches.states().items() if one.state == "away"]
    if left[IN_NEED]:
        needy = counted(left[IN_NEED], "file needs", "files need")
        parts.append(f"{needy} a person (dumbwaiter failed)")
    to_go = left[State.PENDING] + left[State.STORED]
    if to_go:
        parts.append(f"uploading {counted(app.engine.busy, 'file')}, {to_go} to go")
    elif app.intake.waiting:
        parts.append("looking through folders")
    elif left[AFTER]:
        parts.append(f"all is uploaded, {counted(left[AFTER], 'file')} to put away")
    else:
        parts.append(f"nothing to do, watching {counted(len(app.config.watch), 'folder')}")
    return "; ".join(parts).replace("\n", " ")
