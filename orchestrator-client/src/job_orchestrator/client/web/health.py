"""GET /health and GET /load."""

from aiohttp import web

from job_orchestrator.client import __version__, keys
from job_orchestrator.common.messages import Health
from job_orchestrator.common.web.answers import json_response


async def health(request: web.Request) -> web.Response:
    """Tell whether the client can work.

    ---
    summary: Whether the client can do its work
    tags: [service]
    responses:
      "200":
        description: It can
        content:
          application/json:
            schema: {$ref: "#/components/schemas/Health"}
      "500":
        description: It can't; the message says why
    """
    await request.app[keys.HEALTH]()
    return json_response(Health(version=__version__, status="healthy"))


async def load(request: web.Request) -> web.Response:
    """Give the CPU use of the machine.

    ---
    summary: CPU use of the machine, per cent
    tags: [service]
    responses:
      "200":
        description: A number from 0 to 100, at most 5 s old
        content:
          application/json:
            schema: {type: number}
            example: 45.2
    """
    return web.json_response(request.app[keys.LOAD].reading.cpu)
