"""Long responses, with limits for readers that are slow or have disconnected."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from aiohttp import hdrs, web

from job_orchestrator.common.errors import DomainError

logger = logging.getLogger(__name__)

WRITE_TIMEOUT_S = 20.0
"""Time for which a reader may accept nothing before it is disconnected, in seconds."""


def stream_response(content_type: str) -> web.StreamResponse:
    """Create the response of an event stream."""
    # Proxies that buffer responses (nginx) would delay the events.
    headers = {hdrs.CACHE_CONTROL: "no-cache", "X-Accel-Buffering": "no"}
    response = web.StreamResponse(headers=headers)
    response.content_type = content_type
    return response


async def started(blocks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Wait for the first block, and return an iterator over all blocks, including it.

    An error before the first block can still become an error response.
    """

    async def all_blocks() -> AsyncGenerator[bytes, None]:
        async with aclosing(blocks):
            first = await anext(blocks, b"")
            yield b""
            yield first
            async for block in blocks:
                yield block

    iterator = all_blocks()
    # A generator that has not begun would not close ``blocks``.
    await anext(iterator)
    return iterator


async def send(
    request: web.Request, response: web.StreamResponse, blocks: AsyncGenerator[bytes, None]
) -> web.StreamResponse:
    """Send ``blocks`` as they arrive, until they end or the reader is gone or too slow.

    The response to HEAD has the headers only.

    If they fail with a ``DomainError``, the connection is closed, so that the reader sees that the
    response is incomplete.
    """
    await response.prepare(request)
    try:
        async with aclosing(blocks):
            if request.method == hdrs.METH_HEAD:
                return response
            async for block in blocks:
                async with asyncio.timeout(WRITE_TIMEOUT_S) as writing:
                    await response.write(block)
    except ConnectionError:
        pass  # the reader has disconnected
    except (TimeoutError, DomainError) as error:
        if isinstance(error, TimeoutError) and not writing.expired():
            raise
        logger.info(
            "%s %s was aborted: %s", request.method, request.path, error or "the reader is too slow"
        )
        if request.transport is not None:
            request.transport.abort()
    return response
