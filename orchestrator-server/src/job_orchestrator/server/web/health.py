"""GET /health."""

from aiohttp import web

from job_orchestrator.common.messages import Health
from job_orchestrator.common.web.answers import json_response
from job_orchestrator.server import __version__, keys


async def health(request: web.Request) -> web.Response:
    """Tell whether the server can work.

    ---
    summary: Whether the server can do its work
    description: The database and the data folder are tried.
    tags: [service]
    responses:
      "200":
        description: It can
        content:
          application/json:
            schema: {$ref: "#/components/schemas/Health"}
      "500":
        description: It can't; the message says why
        content:
          application/json:
            example: {id: 0, status: Unknown, message: "The data folder can't be written"}
    """
    await request.app[keys.HEALTH]()
    return json_response(Health(version=__version__, status="healthy"))
