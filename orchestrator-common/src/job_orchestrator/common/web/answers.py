"""Answers that both services give."""

from collections.abc import Mapping

import msgspec
import prometheus_client
from aiohttp import web

from job_orchestrator.common.messages import Pong, encode
from job_orchestrator.common.runtime.threads import in_thread


def json_response(
    message: msgspec.Struct, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Answer with a message as JSON."""
    return web.Response(
        body=encode(message),
        status=status,
        headers=headers,
        content_type="application/json",
    )


async def ping(request: web.Request) -> web.Response:
    """Answer.

    ---
    summary: Show that the service answers
    tags: [service]
    responses:
      "200":
        description: It does
        content:
          application/json:
            schema: {$ref: "#/components/schemas/Pong"}
    """
    return json_response(Pong())


async def metrics_response(registry: prometheus_client.CollectorRegistry) -> web.Response:
    """All metrics in Prometheus' text format."""
    return web.Response(
        body=await in_thread(prometheus_client.generate_latest, registry),
        headers={"Content-Type": prometheus_client.CONTENT_TYPE_LATEST},
    )
