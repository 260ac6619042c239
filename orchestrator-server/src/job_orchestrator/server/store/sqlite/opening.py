"""Opening the store: its two connections, and the schema brought up to date."""

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from job_orchestrator.server.store.sqlite.jobs import JobStore
from job_orchestrator.server.store.sqlite.schema import connect, migrate
from job_orchestrator.server.store.sqlite.writer import Writer


@asynccontextmanager
async def open_store(
    path: Path,
    now: Callable[[], float] = time.time,
    *,
    wrote: Callable[[float], None] = lambda _: None,
) -> AsyncIterator[JobStore]:
    """Open (create, migrate) the database. Raises ``StartupError``.

    ``wrote`` is called with the seconds that each transaction took.
    """
    async with contextlib.AsyncExitStack() as connections:
        writing = await connect(path)
        connections.push_async_callback(writing.close)
        await migrate(writing)
        reading = await connect(path)
        connections.push_async_callback(reading.close)
        yield JobStore(Writer(writing, wrote), reading, now)
