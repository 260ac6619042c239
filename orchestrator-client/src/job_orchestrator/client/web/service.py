"""Routes about the client itself: its health, its load, its metrics."""

from aiohttp import web

from job_orchestrator.client import __version__, keys
from job_orchestrator.common.messages.service import Health
from job_orchestrator.common.web.answers import json_response, metrics_response


async def health(request: web.Request) -> web.Response:
    """Check that the client can work."""
    await request.app[keys.HEALTH]()
    return json_response(Health(version=__version__, status="healthy"))


async def load(request: web.Request) -> web.Response:
    """Return the CPU use of the machine, in per cent."""
    return web.json_response(request.app[keys.LOAD].reading.cpu)


async def metrics(request: web.Request) -> web.Response:
    """Return the metrics in the text format of Prometheus."""
    current = request.app[keys.METRICS]
    current.set_gauges(request.app[keys.LOAD].reading, request.app[keys.EVENTS].open_streams)
    return await metrics_response(current.registry)
