"""One Chromium, and one jo-server with a jo-client, for all browser tests of a worker.

The fixtures live in the loop of the session, as the browser does; so do the tests.
"""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect

from browsing import DESK, Gate, OpenPage, StartService, Watch
from harness import Portal, Service

# CPU time is short when everything is tested at once: a browser is slow then, not wrong.
TIMEOUT_MS = 30_000
expect.set_options(timeout=TIMEOUT_MS)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """A browser. The test is skipped if none is installed."""
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
    """Start services by name; they and their folders are removed at the end of the session."""
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
    """Start a jo-server for the service ``example`` with a separate client."""

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
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield session


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server(start_server: StartService) -> Service:
    """A server that the tests share; each test has separate users."""
    return await start_server()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def portal(server: Service, http: aiohttp.ClientSession) -> Portal:
    """A portal in front of that server."""
    return Portal(server.url, http)


@pytest_asyncio.fixture(loop_scope="session")
async def open_page(chromium: Browser) -> AsyncIterator[OpenPage]:
    """Open a page of a dashboard in a fresh profile; options are those of the profile.

    At the end of the test it is checked that no page has run or fetched anything forbidden.
    """
    contexts, watches = [], []

    async def start(server: Service, place: str = "", **options: Any) -> Page:
        settings = {"viewport": DESK, "reduced_motion": "reduce", **options}
        context = await chromium.new_context(**settings)
        contexts.append(context)
        context.set_default_timeout(TIMEOUT_MS)
        page = await context.new_page()
        watch = Watch(server.url)
        watches.append(watch)
        watch.attach(page)
        await page.goto(f"{server.url}/dashboard/{place}")
        return page

    yield start
    for context in contexts:
        await context.close()
    assert [fault for watch in watches for fault in watch.faults] == []


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """A gate that scripts of this test wait for."""
    return Gate(tmp_path / "gate")
