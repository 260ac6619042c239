"""GET /metrics."""

from aiohttp import web

from job_orchestrator.client import keys
from job_orchestrator.common.web.answers import metrics_response


async def metrics(request: web.Request) -> web.Response:
    """Give the metrics.

    ---
    summary: Metrics for Prometheus
    tags: [service]
    responses:
      "200":
        description: Prometheus' text format
        content:
          text/plain:
            schema: {type: string}
    """
    shown = request.app[keys.METRICS]
    shown.set_gauges(request.app[keys.LOAD].reading, request.app[keys.EVENTS].open_streams)
    return await metrics_response(shown.registry)
