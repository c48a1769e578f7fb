"""Small pictures of catalogued files, for those who look through them.

A picture is the file itself where it is small, else the preview that a camera put into it: nothing is decoded here. It
comes from the unchanged local original, else from the provider; only when somebody asks, a few at a time.
"""

import asyncio
import os
from functools import partial
from typing import NamedTuple

from dumbwaiter import log
from dumbwaiter.app import App
from dumbwaiter.control.orders import Orders
from dumbwaiter.errors import Failure, Verdict
from dumbwaiter.files import exif
from dumbwaiter.files.mime import mime_by_head
from dumbwaiter.files.roots import hangs_with
from dumbwaiter.files.version import open_version
from dumbwaiter.model import MIB, Entry
from dumbwaiter.wire.message import Request

SIZE_MAX = MIB  # of a file that is shown whole
FETCHED = 4  # pictures at once
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".webp")


class Picture(NamedTuple):
    """Bytes that a browser can show."""

    mime: str
    content: bytes


def promising(entry: Entry) -> bool:
    """True when it is worth asking for a picture; looks at name and size only."""
    name = entry.name.lower()
    return name.endswith(SUFFIXES) and (0 < entry.size <= SIZE_MAX or name.endswith((".jpg", ".jpeg")))


class Pictures:
    """The pictures of one app's entries."""

    def __init__(self, app: App, orders: Orders) -> None:
        self._app = app
        self._orders = orders
        self._room = asyncio.Semaphore(FETCHED)

    async def of(self, entry: Entry) -> Picture | None:
        """Returns a picture of an entry, None where there is none to be had."""
        if not promising(entry):
            return None
        async with self._room:
            content = await self._local(entry)
            if content is None and entry.size <= SIZE_MAX:
                content = await self._remote(entry)
        mime = mime_by_head(content) if content else None
        return Picture(mime, content) if mime and content else None

    async def _local(self, entry: Entry) -> bytes | None:
        root = self._app.config.folder_of(entry.watch)
        if root is None:
            return None
        look = partial(_read, root, entry)
        try:
            return await self._app.engine.context.threads.look(
                hangs_with(root, entry.path), look, lambda _content: None
            )
        except TimeoutError:
            return None

    async def _remote(self, entry: Entry) -> bytes | None:
        try:
            link = await self._orders.link(entry.id, None)
            reply = await self._app.http.call(Request("a picture for the page", "GET", link.url))
        except (Failure, Verdict) as error:
            log.get("pictures").debug("no picture", reason=str(error))
            return None
        return reply.body if reply.status == 200 else None


def _read(root: str, entry: Entry) -> bytes | None:
    """Reads the local original, if it still is this version."""
    try:
        fd = open_version(root, entry.path, entry.stamp)
    except Verdict:
        return None
    try:
        with os.fdopen(fd, "rb") as file:
            if entry.size <= SIZE_MAX:
                return file.read(SIZE_MAX)
            preview = exif.tags(file).get("JPEGThumbnail")
            return preview if isinstance(preview, bytes) else None
    except OSError as error:
        log.get("pictures").debug("no picture", reason=error.strerror)
        return None
