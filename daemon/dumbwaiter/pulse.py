"""News without content: whoever waits looks for himself what has changed."""

import asyncio
from contextlib import suppress


class Pulse:
    """Tells whoever waits that something has changed. One beat may stand for many changes."""

    def __init__(self) -> None:
        self.ended = False
        self._event = asyncio.Event()

    def end(self) -> None:
        """Beats for the last time: answers that go on end with the daemon."""
        self.ended = True
        self.beat()

    def beat(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    def next(self) -> asyncio.Event:
        """Returns the event that the next beat sets."""
        return self._event


async def wait_for_beat(beat: asyncio.Event, seconds: float | None) -> None:
    """Returns at a beat, or after so many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await beat.wait()
