"""Shared parts of the browser tests: checks of every page, and jobs to display."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
from playwright.async_api import ConsoleMessage, Page, Request

from harness import Service

DESK = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}

StartService = Callable[..., Awaitable[Service]]
OpenPage = Callable[..., Awaitable[Page]]


class PageMonitor:
    """Records what no page may do: errors, dialogs, requests to other hosts.

    ``other`` is the origin of another site that the page leads to.
    """

    def __init__(self, origin: str, other: str | None = None) -> None:
        self.origin = origin
        self.other = other
        self.problems: list[str] = []

    def attach(self, page: Page) -> None:
        """Monitor a page, which must not have loaded anything yet."""
        page.on("request", self._request)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.problems.append(f"dialog: {dialog.message}"))

    def _request(self, request: Request) -> None:
        if self.other is not None and (
            request.frame.url.startswith(self.other)
            or (request.is_navigation_request() and request.url.startswith(self.other))
        ):
            return
        if not request.url.startswith((self.origin, f"blob:{self.origin}", "data:", "about:")):
            self.problems.append(f"request to another host: {request.url}")

    def _console(self, message: ConsoleMessage) -> None:
        # Responses such as 404 are part of some tests; the browser logs each of them.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.problems.append(f"console: {message.text}")


class Gate:
    """A file that scripts wait for, to control when they end."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def script(self, *, before: str = "", after: str = "") -> str:
        """Return a script that waits until the gate is open."""
        return f"{before}\nuntil [ -e {self._path} ]; do sleep 0.05; done\n{after}\n"

    def open(self) -> None:
        """Let the scripts continue."""
        self._path.touch()


async def submit(url: str, script: str, **fields: str) -> int:
    """Submit a job with optional form fields and return its id."""
    form = aiohttp.FormData({"user_id": "1", "service": "example", **fields}, quote_fields=False)
    form.add_field("file", script.encode(), filename="run.sh")
    async with aiohttp.request("POST", f"{url}/upload", data=form) as response:
        answer = await response.json()
        assert response.status == 201, answer
        return int(answer["id"])
