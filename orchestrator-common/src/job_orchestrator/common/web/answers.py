"""Responses of both services."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

import msgspec
import prometheus_client
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from job_orchestrator.common.messages.encoding import encode
from job_orchestrator.common.messages.service import Pong
from job_orchestrator.common.runtime.threads import in_thread


def json_response(
    message: msgspec.Struct | Sequence[msgspec.Struct],
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """Answer with a message, or a list of messages, as JSON and a newline, for terminals."""
    return web.Response(
        body=encode(message) + b"\n",
        status=status,
        headers=headers,
        content_type="application/json",
    )


def front_page(page: str, *, dashboard: str = "", api: str) -> Handler:
    """Create the handler of ``/``: it leads browsers to ``page``, and answers others with pong.

    ``dashboard`` and ``api`` are the paths that the answer names.
    """

    async def show(request: web.Request) -> web.StreamResponse:
        headers = {"Vary": "Accept"}
        if "text/html" in request.headers.get(hdrs.ACCEPT, ""):
            # Relative, so that it also works behind a proxy that adds a prefix.
            headers["Location"] = page.removeprefix("/")
            return web.Response(status=HTTPStatus.FOUND, headers=headers)
        return json_response(Pong("pong", dashboard, api), headers=headers)

    return show


async def metrics_response(registry: prometheus_client.CollectorRegistry) -> web.Response:
    """Answer with all metrics, in the text format of Prometheus."""
    return web.Response(
        body=await in_thread(prometheus_client.generate_latest, registry),
        headers={"Content-Type": prometheus_client.CONTENT_TYPE_LATEST},
    )
