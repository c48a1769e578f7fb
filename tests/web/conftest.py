"""A real browser, and a daemon with its page."""

import shutil
import socket
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from program import Program


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, without a window; skips where there is none."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"]) as launched,
    ):
        yield launched


class Site:
    """An installation whose daemon serves the page."""

    def __init__(self, program: Program, *lines: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.program = program
        self.url = f"http://127.0.0.1:{self.port}"
        web = "\n".join([f'\n[web]\nlisten = "127.0.0.1:{self.port}"', *lines])
        program.config.write_text(program.config.read_text() + web + "\n")

    def limit(self, rate: str) -> None:
        self.program.config.write_text(f'{self.program.config.read_text()}\n[limits]\nbandwidth = "{rate}"\n')


@pytest.fixture
def site(program: Program) -> Site:
    return Site(program)


class Visitor:
    """One browser window, and what it was up to: its requests, its complaints."""

    def __init__(self, context: BrowserContext) -> None:
        self.page: Page = context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on(
            "console", lambda said: self.complaints.append(said.text) if said.type in {"error", "warning"} else None
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visitor]]:
    """Opens windows: `visit(locale="zh-CN")`."""
    contexts: list[BrowserContext] = []

    def visitor(**options: object) -> Visitor:
        contexts.append(browser.new_context(**{"locale": "en-GB", **options}))  # type: ignore[arg-type]
        contexts[-1].set_default_timeout(20_000)
        return Visitor(contexts[-1])

    yield visitor
    for context in contexts:
        context.close()
