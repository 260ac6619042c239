"""Routes about jobs: list, detail, explanation, files of the results, termination."""

from http import HTTPStatus

from aiohttp import web

from job_orchestrator.common.messages.jobs import JobAnswer
from job_orchestrator.common.status import JobStatus
from job_orchestrator.common.web.answers import json_response
from job_orchestrator.server import keys
from job_orchestrator.server.errors import JobAlreadyEnded
from job_orchestrator.server.jobs.reasons import TERMINATION_PENDING
from job_orchestrator.server.web.parameters import (
    PRINCIPAL,
    JobChange,
    cursor,
    job_filter,
    job_id,
    json_body,
    page_size,
    sees_details,
)


async def jobs(request: web.Request) -> web.Response:
    """List jobs."""
    page = await request.app[keys.QUERIES].jobs(
        job_filter(request),
        cursor(request),
        page_size(request),
        details=sees_details(request),
    )
    return json_response(page)


async def job(request: web.Request) -> web.Response:
    """Return a job with its history."""
    details = sees_details(request)
    return json_response(await request.app[keys.QUERIES].job(job_id(request), details=details))


async def files(request: web.Request) -> web.Response:
    """List the files in the results of a job."""
    found = await request.app[keys.QUERIES].store.get(job_id(request))
    return json_response(await request.app[keys.RESULTS].listing(found))


async def explanation(request: web.Request) -> web.Response:
    """Return all on which the start of a queued job depends."""
    found = await request.app[keys.QUERIES].store.get(job_id(request))
    return json_response(await request.app[keys.EXPLANATIONS].of(found))


async def change(request: web.Request) -> web.Response:
    """Change a queued job."""
    wanted = await json_body(request, JobChange)
    changed = await request.app[keys.CONTROL].change(
        job_id(request), request[PRINCIPAL], held=wanted.held, priority=wanted.priority
    )
    queries = request.app[keys.QUERIES]
    return json_response(await queries.job(changed.id, details=sees_details(request)))


async def terminate(request: web.Request) -> web.Response:
    """Terminate a job."""
    job = await request.app[keys.TERMINATION].terminate(job_id(request))
    if job.status is JobStatus.KILLED:
        return json_response(JobAnswer(job.id, job.status, "job terminated"))
    if job.status.has_ended:
        raise JobAlreadyEnded(job.id, job.status)
    answer = JobAnswer(job.id, job.status, TERMINATION_PENDING)
    return json_response(answer, status=HTTPStatus.ACCEPTED)
