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
    queries = request.app[keys.QUERIES]
    shown = request.app[keys.METRICS]
    counts = await queries.store.lists.unended()
    shown.set_gauges(
        counts,
        queries.services.values(),
        queries.clients,
        request.app[keys.EVENT_STREAMS].open_streams,
    )
    return await metrics_response(shown.registry)
