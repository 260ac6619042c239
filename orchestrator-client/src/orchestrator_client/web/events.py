"""GET /events."""

import asyncio

from aiohttp import hdrs, web

from orchestrator_client import keys
from orchestrator_common.sse import CONTENT_TYPE, KEEP_ALIVE

KEEP_ALIVE_S = 5.0
WRITE_TIMEOUT_S = 20.0
"""How long a reader may take nothing at all before it is cut off."""


async def events(request: web.Request) -> web.StreamResponse:
    """Push every change.

    ---
    summary: Changes of payloads and load, as server-sent events
    description: >-
      "payload" with {"id", "status", "exit_code", "message"} at each change of a payload's state;
      "load" with {"cpu", "memory", "slots", "running", "waiting", "draining", "version"} at the
      beginning and every 5 s. A payload that the stopping client gives back is "Cleaned".
    tags: [service]
    responses:
      "200":
        description: The stream; it ends when the client stops or the reader falls behind
        content:
          text/event-stream:
            schema: {type: string}
    """
    response = web.StreamResponse(headers={hdrs.CACHE_CONTROL: "no-cache"})
    response.content_type = CONTENT_TYPE
    with request.app[keys.EVENTS].subscribed() as subscriber:
        await response.prepare(request)
        while (event := await subscriber.next(KEEP_ALIVE_S)) is not None:
            try:
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await response.write(event or KEEP_ALIVE)
            except ConnectionError:
                break  # the reader has gone
            except TimeoutError:
                if request.transport is not None:
                    request.transport.abort()
                break
    return response
