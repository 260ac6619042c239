"""GET /metrics."""

from aiohttp import web

from job_orchestrator.common.web.answers import metrics_response
from job_orchestrator.server import keys


async def metrics(request: web.Request) -> web.Response:
    """Give the metrics.

    ---
    summary: Metrics for Prometheus
    description: For administrators, unless METRICS_OPEN is set.
    tags: [service]
    responses:
      "200":
        description: Prometheus' text format
        content:
          text/plain:
            schema: {type: string}
    """
    overview = request.app[keys.OVERVIEW]
    shown = request.app[keys.METRICS]
    counts = await overview.store.lists.unended()
    shown.set_gauges(
        counts, overview.services.values(), overview.pool, request.app[keys.JOURNAL].open_streams
    )
    return await metrics_response(shown.registry)
