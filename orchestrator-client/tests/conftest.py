"""A jo-client with real bash, real files and real HTTP."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from blockbuster import BlockBuster, blockbuster_ctx

from orchestrator_client.app import create_app
from orchestrator_client.settings import read_settings
from running_client import Client, StartClient


@pytest.fixture(autouse=True)
def no_blocked_loop() -> Iterator[BlockBuster]:
    """A test fails when our code blocks the event loop."""
    with blockbuster_ctx("orchestrator_client") as blockbuster:
        # Pids of children: a few bytes that the kernel has at hand, read in the loop on purpose,
        # so that no script is started meanwhile.
        for call in ("os.listdir", "os.scandir", "io.TextIOWrapper.read", "os.stat"):
            if call in blockbuster.functions:
                blockbuster.functions[call].can_block_in("processes.py", "direct_children")
        yield blockbuster


@pytest.fixture
async def start_client(tmp_path: Path) -> AsyncIterator[StartClient]:
    """Start a client with settings."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(**settings: str) -> Client:
            environment = {
                "DATA_PATH": str(tmp_path / "data"),
                "SLOTS": "4",
                "KILL_GRACE": "0.5s",
                **settings,
            }
            # In a thread: it reads schema files, which a real start does before there is a loop.
            app = await asyncio.to_thread(create_app, read_settings(environment, {}))
            server = TestServer(app)
            await stack.enter_async_context(server)
            http = aiohttp.ClientSession(str(server.make_url("")))
            await stack.enter_async_context(http)
            return Client(app, http, tmp_path / "data" / "payloads")

        yield start


@pytest.fixture
async def client(start_client: StartClient) -> Client:
    """A client with four slots."""
    return await start_client()
