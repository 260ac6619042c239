"""Fixtures: a jo-client with real bash, real files and real HTTP."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from blockbuster import BlockBuster, blockbuster_ctx

from grid_engine_cell import GridEngineCell, grid_engine_cell
from job_orchestrator.client.app import create_app
from job_orchestrator.client.executors.batch.commands import Commands
from job_orchestrator.client.executors.batch.grid_engine import GridEngine
from job_orchestrator.client.executors.batch.slurm import Slurm
from job_orchestrator.client.settings import read_settings
from job_orchestrator.client.workspace.layout import Workspaces
from payload_folders import make_endless
from running_client import Client, StartClient, adopted, exempt_from_zombies
from slurm_cluster import SlurmCluster, slurm_cluster

SQL_IN_THE_LOOP = {"_execute", "open_payloads"}
"""Functions that run SQL in the event loop: the database is in memory."""


@pytest.fixture(autouse=True)
def no_blocked_loop() -> Iterator[BlockBuster]:
    """Fail a test when the client blocks the event loop."""
    with blockbuster_ctx("job_orchestrator.client") as blockbuster:
        # Coverage takes a lock when it sees a file for the first time.
        acquire = blockbuster.functions["threading.Lock.acquire"]
        acquire.can_block_in("coverage/collector.py", "lock_data")
        for method in ("execute", "executescript"):
            function = blockbuster.functions[f"sqlite3.Connection.{method}"]
            function.can_block_in("job_orchestrator/client/payloads/store.py", SQL_IN_THE_LOOP)
        for function in blockbuster.functions.values():
            function.can_block_in("job_orchestrator/common/runtime/short_work.py", {"run"})
        yield blockbuster


@pytest.fixture(autouse=True)
def only_own_zombies() -> None:
    """Let ``zombies`` find only what the test itself starts."""
    exempt_from_zombies(adopted())


@pytest.fixture
def workspaces(tmp_path: Path) -> Workspaces:
    """Folder of workspaces, as it is after a start."""
    workspaces = Workspaces(tmp_path)
    workspaces.prepare()
    workspaces.clear()
    return workspaces


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Folder that other users can traverse, unlike the folders of pytest."""
    folder = Path(tempfile.mkdtemp(prefix="jo-open-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def slurm_daemons() -> Iterator[SlurmCluster]:
    """Cluster of one node, for all tests of this process."""
    with slurm_cluster() as cluster:
        yield cluster


@pytest.fixture
def slurm(slurm_daemons: SlurmCluster) -> Slurm:
    """Slurm, as the batch executor uses it."""
    return Slurm(Commands(slurm_daemons.environment))


@pytest.fixture(scope="session")
def grid_engine_daemons() -> Iterator[GridEngineCell]:
    """Cell of one node, for all tests of this process."""
    with grid_engine_cell() as cell:
        yield cell


@pytest.fixture
def grid_engine(grid_engine_daemons: GridEngineCell) -> GridEngine:
    """Grid Engine, as the batch executor uses it."""
    return GridEngine(Commands(grid_engine_daemons.environment))


@pytest.fixture
async def start_client(tmp_path: Path) -> AsyncIterator[StartClient]:
    """Function that starts a client with settings."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(**settings: str) -> Client:
            environment = {
                "DATA_PATH": str(tmp_path / "data"),
                "SLOTS": "4",
                "KILL_GRACE": "0.5s",
                **settings,
            }
            # In a thread: it reads the files of the UI, which jo-client does before its loop runs.
            app = await asyncio.to_thread(create_app, read_settings(environment, {}))
            server = TestServer(app)
            await stack.enter_async_context(server)
            url = server.make_url("")
            http = aiohttp.ClientSession(url)
            await stack.enter_async_context(http)
            return Client(app, url, http, Path(environment["DATA_PATH"]) / "payloads")

        yield start


@pytest.fixture
async def client(start_client: StartClient) -> Client:
    """Client with four slots."""
    return await start_client()


@pytest.fixture
def endless(tmp_path: Path) -> str:
    """Shell commands that link to files which take very long to pack, and print a word."""
    folder = tmp_path / "endless"
    folder.mkdir()
    make_endless(folder)
    return f"cp -al {folder} endless; echo said; "
