"""The daemon in the process of a test, for what only that can reach: a limit made smaller, a moment between two steps."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from dumbwaiter.app import App, open_app
from dumbwaiter.config.file import load
from dumbwaiter.control.orders import Orders
from dumbwaiter.places import Places
from program import PATIENCE, Vendors


@asynccontextmanager
async def daemon(vendors: Vendors, folder: Path) -> AsyncIterator[App]:
    """The app of the sandbox's configuration, at work on what is put into it; it watches nothing."""
    names = {name: str(folder / name) for name in ("state", "cache", "runtime")}
    for name in names.values():
        os.makedirs(name, exist_ok=True)
    path = vendors.sandbox.config_path
    async with open_app(load(path), Places(str(path), **names)) as app:
        await app.start()
        yield app


async def put(app: App, provider: str, path: Path, content: bytes) -> int:
    """Makes a job of a file."""
    await asyncio.to_thread(path.write_bytes, content)
    (id_,) = await Orders(app).put([str(path)], provider, None)
    return id_


async def status(app: App) -> dict[str, Any]:
    return await asyncio.to_thread(app.status.facts)


async def until(true: Callable[[dict[str, Any]], bool], app: App) -> dict[str, Any]:
    """Returns the first status of which something is true."""
    async with asyncio.timeout(PATIENCE):
        while True:
            step = app.pulse.next()  # before looking: what happens meanwhile is looked at too
            if true(found := await status(app)):
                return found
            await step.wait()
