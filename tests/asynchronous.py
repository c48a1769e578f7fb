"""Small helpers for tests of asynchronous code."""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any


def on_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Runs a test that is a coroutine on a loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **named: Any) -> None:
        asyncio.run(test(*args, **named))  # type: ignore[arg-type]

    return run


def at_once(value: Any) -> "Future[Any]":
    """A future that has its result already."""
    done: Future[Any] = Future()
    done.set_result(value)
    return done
