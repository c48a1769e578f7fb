"""The page as a visitor meets it: a daemon that serves it, and a browser window that keeps a record."""

import socket

from playwright.sync_api import BrowserContext, ConsoleMessage, Page

from program import Program


class Site:
    """An installation whose daemon serves the page."""

    def __init__(self, program: Program) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.program = program
        self.url = f"http://127.0.0.1:{self.port}"
        self.configure(f'[web]\nlisten = "127.0.0.1:{self.port}"')

    def configure(self, lines: str) -> None:
        with open(self.program.config, "a", encoding="utf-8") as file:
            file.write(f"\n{lines}\n")


class Visitor:
    """One browser window, and what it was up to: its requests, its complaints."""

    def __init__(self, context: BrowserContext) -> None:
        self.page: Page = context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _heard(self, said: ConsoleMessage) -> None:
        if said.type in {"error", "warning"}:
            self.complaints.append(said.text)
