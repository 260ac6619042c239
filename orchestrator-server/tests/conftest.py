"""A jo-server on real files and real HTTP, with clients that misbehave as a test wants."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from blockbuster import BlockBuster, blockbuster_ctx

from fake_client import FakeClient, StartClient
from job_orchestrator.server.app import create_app
from job_orchestrator.server.settings.server import read_settings
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.store.sqlite.store import open_store
from job_orchestrator.server.tuning import Tuning
from running_server import Server, StartServer
from stores import IMPLEMENTATIONS, Database, Implementation, OpenStore


@pytest.fixture(autouse=True)
def no_blocked_loop() -> Iterator[BlockBuster]:
    """Fail a test when the server's code blocks the event loop."""
    with blockbuster_ctx("job_orchestrator.server") as blockbuster:
        # The measurement of coverage notes a file that is new to it.
        acquire = blockbuster.functions["threading.Lock.acquire"]
        acquire.can_block_in("coverage/collector.py", "lock_data")
        yield blockbuster


@pytest.fixture
def tuning() -> Tuning:
    """Return the tuning of all servers of a test; a test overrides it by ``parametrize``."""
    return Tuning()


@pytest.fixture
def inline_limit() -> str:
    """Return INLINE_LIMIT of all servers of a test; a test overrides it by ``parametrize``."""
    return "64kB"


@pytest.fixture
async def start_client() -> AsyncIterator[StartClient]:
    """Provide a function that serves a fake client and returns its URL."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(client: FakeClient) -> str:
            server = TestServer(client.app())
            await stack.enter_async_context(server)
            return str(server.make_url("")).rstrip("/")

        yield start


@pytest.fixture
async def start_server(
    tmp_path: Path, tuning: Tuning, inline_limit: str
) -> AsyncIterator[StartServer]:
    """Provide a function that starts a server with clients at some URLs for ``example``."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(*urls: str, **settings: str) -> Server:
            environment = {
                "SERVICE_EXAMPLE_UPLOAD_URL": ",".join(f"{url}/submit" for url in urls),
                "SERVICE_EXAMPLE_DOWNLOAD_URL": ",".join(f"{url}/retrieve" for url in urls),
                "DB_PATH": str(tmp_path / "db.sqlite"),
                "DATA_PATH": str(tmp_path / "data"),
                "INLINE_LIMIT": inline_limit,
                **settings,
            }
            # In a thread: it reads schema files, which a real start does before there is a loop.
            app = await asyncio.to_thread(create_app, read_settings(environment, {}), tuning)
            server = TestServer(app)
            await stack.enter_async_context(server)
            url = server.make_url("")
            http = aiohttp.ClientSession(url)
            await stack.enter_async_context(http)
            return Server(app, url, http, tmp_path)

        yield start


@pytest.fixture
def client() -> FakeClient:
    """Create a fake client."""
    return FakeClient()


@pytest.fixture
async def server(
    client: FakeClient, start_client: StartClient, start_server: StartServer
) -> Server:
    """Start a server with that client, and wait until its event stream is open."""
    server = await start_server(await start_client(client))
    await client.connected.wait()
    return server


@pytest.fixture
async def idle_server(start_server: StartServer) -> Server:
    """Start a server whose only client can't be reached, so that jobs stay queued."""
    return await start_server("http://127.0.0.1:9", SERVICE_EXAMPLE_MAX_ATTEMPTS="100")


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request: pytest.FixtureRequest) -> Implementation:
    """Implementation of the job store."""
    return IMPLEMENTATIONS[request.param]


@pytest.fixture
def open_job_store(implementation: Implementation, tmp_path: Path) -> OpenStore:
    """Open the job store of the test, with a clock if one is given."""

    def opened(now: Callable[[], float] = time.time) -> AbstractAsyncContextManager[JobStore]:
        return implementation.open(tmp_path, now)

    return opened


@pytest.fixture
async def store(open_job_store: OpenStore) -> AsyncIterator[JobStore]:
    """Job store without jobs."""
    async with open_job_store() as store:
        yield store


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Path:
    """Path of the database of a SQLite store."""
    return tmp_path / "db.sqlite"


@pytest.fixture
async def sqlite_store(sqlite_path: Path) -> AsyncIterator[JobStore]:
    """SQLite store without jobs."""
    async with open_store(sqlite_path) as store:
        yield store


@pytest.fixture
def sqlite_database(sqlite_path: Path) -> Database:
    """Open the file of a SQLite store in a second connection, and commit at the end."""

    @contextlib.contextmanager
    def opened() -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(sqlite_path)) as connection, connection:
            yield connection

    return opened
