"""Stream of changes that is open before a list is requested, so that no change is missed."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from job_orchestrator.cli.session import Session
from job_orchestrator.sdk import Change


@asynccontextmanager
async def open_changes(
    session: Session, *, user_id: int | None = None
) -> AsyncIterator[AsyncGenerator[Change]]:
    """Open the stream of changes and yield it.

    A list that is requested inside the block is continued by the stream without a gap. If the
    stream can't be opened, reading it raises ``ApiError``.
    """
    opened = asyncio.Event()
    stream = session.client.events(user_id=user_id, on_open=opened.set)

    async def begin() -> Change:
        return await anext(stream)

    first = asyncio.create_task(begin())
    opening = asyncio.create_task(opened.wait())

    async def all_changes() -> AsyncGenerator[Change]:
        yield await first
        async for change in stream:
            yield change

    async with aclosing(stream):
        try:
            await asyncio.wait({first, opening}, return_when=asyncio.FIRST_COMPLETED)
            async with aclosing(all_changes()) as changes:
                yield changes
        finally:
            for task in (first, opening):
                task.cancel()
            await asyncio.gather(first, opening, return_exceptions=True)
