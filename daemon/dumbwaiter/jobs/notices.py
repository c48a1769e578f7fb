"""Notices on the desktop: one for a burst of events, over the session bus where there is one.

jeepney speaks D-Bus in Python alone and is here already for the keyring; the interface is freedesktop.org's "Desktop
Notifications Specification" 1.2.
"""

import asyncio
import html
import os
from collections import Counter
from typing import Any

from dumbwaiter import log
from dumbwaiter.naming import shown

QUIET = 3.0  # seconds without an event that end a burst
LONGEST = 30.0  # seconds that a burst may last
ANSWER = 5.0
SERVICE = "org.freedesktop.Notifications"
WORDS = {"on_done": "uploaded", "on_failed": "refused", "on_attention": "in need of a person"}


class Notices:
    """Collects events and shows them. All of it runs on the loop."""

    def __init__(self, quiet: float = QUIET) -> None:
        self._quiet = quiet
        self._counts: Counter[str] = Counter()
        self._latest = ""
        self._began = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._log = log.get("notices")

    def add(self, event: str, text: str) -> None:
        """Adds an event to the burst; `text` is shown for the latest."""
        loop = asyncio.get_running_loop()
        if not self._counts:
            self._began = loop.time()
        self._counts[event] += 1
        self._latest = text
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(min(loop.time() + self._quiet, self._began + LONGEST), self._flush)

    async def close(self) -> None:
        """Shows what was collected."""
        if self._timer is not None:
            self._timer.cancel()
        if self._counts:
            self._flush()
        if self._task is not None:
            await self._task

    def _flush(self) -> None:
        summary = ", ".join(f"{self._counts[event]} {words}" for event, words in WORDS.items() if self._counts[event])
        self._counts.clear()
        self._task = asyncio.create_task(self._show(f"dumbwaiter: {summary}", shown(self._latest)))

    async def _show(self, summary: str, body: str) -> None:
        """A desktop that does not answer is no trouble of ours."""
        if "DBUS_SESSION_BUS_ADDRESS" not in os.environ:
            return
        from jeepney import DBusAddress, new_method_call  # only where notices are wanted
        from jeepney.io.asyncio import open_dbus_router

        desktop = DBusAddress(f"/{SERVICE.replace('.', '/')}", SERVICE, SERVICE)
        text = html.escape(body, quote=False)  # the body is markup, the summary is not
        values: tuple[Any, ...] = ("dumbwaiter", 0, "", summary, text, [], {}, -1)
        try:
            async with asyncio.timeout(ANSWER), open_dbus_router() as router:
                await router.send_and_get_reply(new_method_call(desktop, "Notify", "susssasa{sv}i", values))
        except Exception as error:  # noqa: BLE001 - the library has no common ancestor for what can go wrong
            self._log.info("no desktop notice", error=type(error).__name__)
