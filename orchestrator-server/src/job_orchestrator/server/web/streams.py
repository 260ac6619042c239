"""Routes that stream: the events of all jobs or of one job, and the output of a script."""

import asyncio

from aiohttp import web

from job_orchestrator.common.errors import BadRequest
from job_orchestrator.common.protocol.headers import JOB_ATTEMPT, LAST_EVENT_ID
from job_orchestrator.common.protocol.sse import CONTENT_TYPE
from job_orchestrator.common.web.log_query import log_query, log_response
from job_orchestrator.common.web.streaming import send, started, stream_response
from job_orchestrator.server import keys
from job_orchestrator.server.jobs.event_streams import Topic
from job_orchestrator.server.web.parameters import job_id, sees_details, user_id

_MAX_DIGITS = 18


async def events(request: web.Request) -> web.StreamResponse:
    """Stream the changes of jobs."""
    topic = Topic(user_id=user_id(request), details=sees_details(request))
    blocks = request.app[keys.EVENT_STREAMS].follow(topic, _last_event_id(request))
    return await send(request, stream_response(CONTENT_TYPE), await started(blocks))


async def job_events(request: web.Request) -> web.StreamResponse:
    """Stream the changes of a job until it has ended."""
    number, after = job_id(request), _last_event_id(request)
    # A browser does not reconnect after 204. Unknown jobs are detected here, too.
    if await request.app[keys.EVENT_STREAMS].is_over(number, -1 if after is None else after):
        return web.Response(status=204)
    topic = Topic(job_id=number, details=sees_details(request))
    blocks = request.app[keys.EVENT_STREAMS].follow(topic, after)
    return await send(request, stream_response(CONTENT_TYPE), await started(blocks))


async def job_logs(request: web.Request) -> web.StreamResponse:
    """Return the standard output or error of a job."""
    logs, response = request.app[keys.JOB_LOGS], log_response()
    query = log_query(request)

    def name_attempt(attempt: int) -> None:
        response.headers[JOB_ATTEMPT] = str(attempt)

    try:
        async with asyncio.timeout(None) as bound:
            with logs.expiring_at_stop(bound):
                blocks = logs.read(
                    job_id(request),
                    query.stream,
                    offset=query.offset,
                    follow=query.follow,
                    on_attempt=name_attempt,
                )
                return await send(request, response, await started(blocks))
    except TimeoutError:
        return response  # the server is stopping


def _last_event_id(request: web.Request) -> int | None:
    """Return the number of the last event that the reader has. Raises ``BadRequest``."""
    text = request.headers.get(LAST_EVENT_ID) or request.query.get("last_event_id")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise BadRequest(f"Invalid {LAST_EVENT_ID} {text[:40]!r}, should be a number")
    return int(text)
