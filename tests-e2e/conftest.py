"""Fixtures: services that are stopped when their test ends."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from harness import BIN, Portal, Service, StartClient, StartServer
from jo_command import Jo


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Service]]]:
    """Start services by name. They are stopped, and their folders removed, when the test ends."""
    running: list[Service] = []

    async def start(name: str, programs: Path = BIN, **settings: str) -> Service:
        folder = tmp_path / f"{name}-{len(running)}"
        folder.mkdir()
        service = Service(name, folder, settings, programs)
        running.append(service)
        return await service.start()

    yield start
    for service in reversed(running):
        await service.end()
    # pytest would keep the large results of some tests until the end of the session.
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def start_client(services: Callable[..., Awaitable[Service]]) -> StartClient:
    """Start a jo-client with settings."""

    async def start(programs: Path = BIN, **settings: str) -> Service:
        defaults = {"SLOTS": "10", "KILL_GRACE": "1s"}
        return await services("jo-client", programs, **{**defaults, **settings})

    return start


@pytest.fixture
def start_server(services: Callable[..., Awaitable[Service]]) -> StartServer:
    """Start a jo-server whose service ``example`` uses the given clients, with settings."""

    async def start(*clients: Service | str, programs: Path = BIN, **settings: str) -> Service:
        urls = [client if isinstance(client, str) else client.url for client in clients]
        return await services(
            "jo-server",
            programs,
            SERVICE_EXAMPLE_UPLOAD_URL=",".join(f"{url}/submit" for url in urls),
            SERVICE_EXAMPLE_DOWNLOAD_URL=",".join(f"{url}/retrieve" for url in urls),
            **settings,
        )

    return start


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP session."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=180)) as session:
        yield session


@pytest.fixture
def inline_limit() -> str:
    """Return INLINE_LIMIT of ``server``; a test overrides it by ``parametrize``."""
    return "64kB"


@pytest.fixture
async def server(
    start_client: StartClient, start_server: StartServer, inline_limit: str
) -> Service:
    """A server with one client."""
    return await start_server(await start_client(), INLINE_LIMIT=inline_limit)


@pytest.fixture
async def portal(server: Service, session: aiohttp.ClientSession) -> Portal:
    """A web app that uses that server."""
    return Portal(server.url, session)


@pytest.fixture
def jo(server: Service, tmp_path: Path) -> Jo:
    """Command jo that uses a server with one client."""
    folder = tmp_path / "user"
    folder.mkdir()
    return Jo(server.url, folder)
