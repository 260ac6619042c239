"""Answers that go on for long: what a reader who is slow, gone, or silent for long may cost."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from aiohttp import hdrs, web

from job_orchestrator.common.errors import DomainError

logger = logging.getLogger(__name__)

WRITE_TIMEOUT_S = 20.0
"""How long a reader may take nothing at all before it is cut off."""


def stream_response(content_type: str) -> web.StreamResponse:
    """An answer to be filled as there is something to say."""
    # Proxies that gather answers (nginx) would hold it back.
    headers = {hdrs.CACHE_CONTROL: "no-cache", "X-Accel-Buffering": "no"}
    response = web.StreamResponse(headers=headers)
    response.content_type = content_type
    return response


async def begun(blocks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """``blocks``, once the first one is there: what is raised before it can still be an answer."""
    first = await anext(blocks, b"")

    async def all_blocks() -> AsyncGenerator[bytes, None]:
        async with aclosing(blocks):
            yield first
            async for block in blocks:
                yield block

    return all_blocks()


async def send(
    request: web.Request, response: web.StreamResponse, blocks: AsyncGenerator[bytes, None]
) -> web.StreamResponse:
    """Answer with ``blocks`` as they come, until they end or the reader is gone or too slow.

    When they break off (a ``DomainError``), so does the answer, for the reader to see.
    """
    await response.prepare(request)
    try:
        async with aclosing(blocks):
            async for block in blocks:
                async with asyncio.timeout(WRITE_TIMEOUT_S) as writing:
                    await response.write(block)
    except ConnectionError:
        pass  # the reader has gone
    except (TimeoutError, DomainError) as error:
        if isinstance(error, TimeoutError) and not writing.expired():
            raise
        logger.info("%s %s broke off: %s", request.method, request.path, error or "too slow")
        if request.transport is not None:
            request.transport.abort()
    return response
