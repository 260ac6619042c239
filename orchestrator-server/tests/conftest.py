"""A jo-server on real files and real HTTP, before clients that do as they are told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from blockbuster import BlockBuster, blockbuster_ctx

from fake_client import FakeClient
from job_orchestrator.server.app import create_app
from job_orchestrator.server.settings.server import read_settings
from job_orchestrator.server.store.sqlite.jobs import JobStore
from job_orchestrator.server.store.sqlite.opening import open_store
from running_server import Server, StartServer


@pytest.fixture(autouse=True)
def no_blocked_loop() -> Iterator[BlockBuster]:
    """A test fails when our code blocks the event loop."""
    with blockbuster_ctx("job_orchestrator.server") as blockbuster:
        # The measurement of coverage notes a file that is new to it.
        acquire = blockbuster.functions["threading.Lock.acquire"]
        acquire.can_block_in("coverage/collector.py", "lock_data")
        yield blockbuster


@pytest.fixture
async def start_client() -> AsyncIterator[Callable[[FakeClient], Awaitable[str]]]:
    """Serve a fake client; gives its URL."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(client: FakeClient) -> str:
            server = TestServer(client.app())
            await stack.enter_async_context(server)
            return str(server.make_url("")).rstrip("/")

        yield start


@pytest.fixture
async def start_server(tmp_path: Path) -> AsyncIterator[StartServer]:
    """Start a server for the service ``example`` on some clients' URLs, with settings."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(*urls: str, **settings: str) -> Server:
            environment = {
                "SERVICE_EXAMPLE_UPLOAD_URL": ",".join(f"{url}/submit" for url in urls),
                "SERVICE_EXAMPLE_DOWNLOAD_URL": ",".join(f"{url}/retrieve" for url in urls),
                "DB_PATH": str(tmp_path / "db.sqlite"),
                "DATA_PATH": str(tmp_path / "data"),
                **settings,
            }
            # In a thread: it reads schema files, which a real start does before there is a loop.
            app = await asyncio.to_thread(create_app, read_settings(environment, {}))
            server = TestServer(app)
            await stack.enter_async_context(server)
            http = aiohttp.ClientSession(str(server.make_url("")))
            await stack.enter_async_context(http)
            return Server(app, http, tmp_path)

        yield start


@pytest.fixture
def client() -> FakeClient:
    """A fake client."""
    return FakeClient()


@pytest.fixture
async def server(
    client: FakeClient,
    start_client: Callable[[FakeClient], Awaitable[str]],
    start_server: StartServer,
) -> Server:
    """A server with that client, whose event stream is open."""
    server = await start_server(await start_client(client))
    await client.connected.wait()
    return server


@pytest.fixture
async def idle_server(start_server: StartServer) -> Server:
    """A server whose only client can't be reached: jobs stay queued."""
    return await start_server("http://127.0.0.1:9", SERVICE_EXAMPLE_MAX_ATTEMPTS="100")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[JobStore]:
    """A job store on a new file."""
    async with open_store(tmp_path / "db.sqlite") as store:
        yield store
