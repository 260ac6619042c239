"""Responses of both services."""

from collections.abc import Mapping, Sequence

import msgspec
import prometheus_client
from aiohttp import web

from job_orchestrator.common.messages import Pong, encode
from job_orchestrator.common.runtime.threads import in_thread


def json_response(
    message: msgspec.Struct | Sequence[msgspec.Struct],
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """Answer with a message, or a list of messages, as JSON."""
    return web.Response(
        body=encode(message),
        status=status,
        headers=headers,
        content_type="application/json",
    )


async def ping(request: web.Request) -> web.Response:
    """Answer with pong."""
    return json_response(Pong())


async def metrics_response(registry: prometheus_client.CollectorRegistry) -> web.Response:
    """Answer with all metrics, in the text format of Prometheus."""
    return web.Response(
        body=await in_thread(prometheus_client.generate_latest, registry),
        headers={"Content-Type": prometheus_client.CONTENT_TYPE_LATEST},
    )
