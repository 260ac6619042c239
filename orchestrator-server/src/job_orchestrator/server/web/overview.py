"""GET /services, GET /clients, GET /stats."""

from aiohttp import web

from job_orchestrator.common.web.answers import json_response
from job_orchestrator.server import keys


async def services(request: web.Request) -> web.Response:
    """List the services.

    ---
    summary: The services, their limits and their use
    description: >-
      A service is ok, degraded (some of its clients can't be used) or down (none can); problem says
      why.
    tags: [overview]
    responses:
      "200":
        description: All services
        content:
          application/json:
            schema: {$ref: "#/components/schemas/ServiceList"}
    """
    return json_response(await request.app[keys.QUERIES].all_services())


async def clients(request: web.Request) -> web.Response:
    """List the clients.

    ---
    summary: The clients as the server sees them
    description: >-
      A client is connected (it pushes), polled (an older one, which can't), unreachable, or unknown
      while the server starts. What it has not told is null. For administrators.
    tags: [overview]
    responses:
      "200":
        description: All clients
        content:
          application/json:
            schema: {$ref: "#/components/schemas/ClientList"}
    """
    return json_response(request.app[keys.QUERIES].all_clients())


async def stats(request: web.Request) -> web.Response:
    """Tell what happened in the last hour.

    ---
    summary: Jobs and waiting times of the last 60 minutes
    description: >-
      The oldest minute first; the last one is the present one. Waiting is from submission to the
      start of run.sh. For administrators.
    tags: [overview]
    responses:
      "200":
        description: Sixty minutes
        content:
          application/json:
            schema: {$ref: "#/components/schemas/Stats"}
    """
    return json_response(request.app[keys.QUERIES].stats())
