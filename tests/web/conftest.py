"""A real browser, and a daemon with its page."""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from browsing import Site, Visitor
from program import Program


@pytest.fixture
def browser() -> Iterator[Browser]:
    """Chromium, without a window; skips where there is none.

    Each test starts its own: Playwright keeps an event loop running in this thread, in which no other test could run one.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"]) as launched,
    ):
        yield launched


@pytest.fixture
def site(program: Program) -> Site:
    return Site(program)


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visitor]]:
    """Opens windows: `visit(locale="zh-CN")`."""
    contexts: list[BrowserContext] = []

    def visitor(**options: Any) -> Visitor:
        context = browser.new_context(**({"locale": "en-GB"} | options))
        context.set_default_timeout(20_000)
        contexts.append(context)
        return Visitor(context)

    yield visitor
    for context in contexts:
        context.close()
