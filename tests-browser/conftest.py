"""Fixtures: one Chromium, and one jo-server with a jo-client, for all browser tests of a worker.

Fixtures and tests use the event loop of the session, because the browser is bound to one loop.
"""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from browsing import DESK, Gate, OpenPage, PageMonitor, StartService
from harness import Portal, Service

# Long, because a browser is slow while all tests run in parallel.
TIMEOUT_MS = 60_000
expect.set_options(timeout=TIMEOUT_MS)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """A browser; the test is skipped where Chromium is not installed."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        await browser.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def start_service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StartService]:
    """Start services by name. They are stopped, and their folders removed, after the session."""
    running: list[Service] = []
    root = tmp_path_factory.mktemp("browser")

    async def start(name: str, **settings: str) -> Service:
        folder = root / f"{name}-{len(running)}"
        folder.mkdir()
        service = Service(name, folder, settings)
        running.append(service)
        return await service.start()

    yield start
    for service in reversed(running):
        await service.end()
    shutil.rmtree(root, ignore_errors=True)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def start_server(start_service: StartService) -> StartService:
    """Start a jo-server with settings, and a jo-client for its service ``example``."""

    async def start(**settings: str) -> Service:
        client = await start_service("jo-client", SLOTS="4", KILL_GRACE="1s")
        return await start_service(
            "jo-server",
            SERVICE_EXAMPLE_UPLOAD_URL=f"{client.url}/submit",
            SERVICE_EXAMPLE_DOWNLOAD_URL=f"{client.url}/retrieve",
            SERVICE_EXAMPLE_RUNS_PER_USER="2",
            **settings,
        )

    return start


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP session."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=180)) as session:
        yield session


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server(start_server: StartService) -> Service:
    """A server that the tests share; each test uses its own users."""
    return await start_server()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def portal(server: Service, http: aiohttp.ClientSession) -> Portal:
    """A web app that uses that server."""
    return Portal(server.url, http)


@pytest_asyncio.fixture(loop_scope="session")
async def open_page(chromium: Browser) -> AsyncIterator[OpenPage]:
    """Open a page of a server's dashboard in a fresh browser profile with options.

    The test fails if the monitor of a page has recorded a problem.
    """
    contexts: list[BrowserContext] = []
    monitors: list[PageMonitor] = []

    async def start(
        server: Service, route: str = "", *, other: str | None = None, **options: Any
    ) -> Page:
        settings = {"viewport": DESK, "reduced_motion": "reduce", **options}
        context = await chromium.new_context(**settings)
        contexts.append(context)
        context.set_default_timeout(TIMEOUT_MS)
        page = await context.new_page()
        monitor = PageMonitor(server.url, other)
        monitors.append(monitor)
        monitor.attach(page)
        await page.goto(f"{server.url}/dashboard/{route}")
        return page

    yield start
    for context in contexts:
        await context.close()
    assert [problem for monitor in monitors for problem in monitor.problems] == []


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Gate for the scripts of this test."""
    return Gate(tmp_path / "gate")
