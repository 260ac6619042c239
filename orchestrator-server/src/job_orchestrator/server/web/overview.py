"""Routes about services, clients and statistics."""

from aiohttp import web

from job_orchestrator.common.web.answers import json_response
from job_orchestrator.server import keys


async def services(request: web.Request) -> web.Response:
    """List the services."""
    details = request[keys.PRINCIPAL].is_admin
    return json_response(await request.app[keys.QUERIES].all_services(details=details))


async def clients(request: web.Request) -> web.Response:
    """List the clients."""
    return json_response(request.app[keys.QUERIES].all_clients())


async def stats(request: web.Request) -> web.Response:
    """Return the statistics of the last hour."""
    return json_response(await request.app[keys.QUERIES].stats())
