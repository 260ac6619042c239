"""Route to submit a job."""

from aiohttp import hdrs, web

from job_orchestrator.common.errors import FilesTooLarge
from job_orchestrator.common.messages.jobs import ArrayAnswer, JobAnswer
from job_orchestrator.common.protocol.headers import IDEMPOTENCY_KEY
from job_orchestrator.common.web.answers import json_response
from job_orchestrator.server import keys
from job_orchestrator.server.jobs.views import array_ids
from job_orchestrator.server.web.parameters import PRINCIPAL

OVERHEAD_BYTES = 16 << 20
"""Bytes that multipart may add to the files, mostly headers of parts."""


async def upload(request: web.Request) -> web.Response:
    """Submit a job."""
    limit = request.app[keys.SETTINGS].max_upload_bytes
    least_bytes = max(0, (request.content_length or 0) - OVERHEAD_BYTES)
    if least_bytes > limit:
        raise FilesTooLarge(limit)
    job, is_new = await request.app[keys.SUBMISSION].submit(
        request.content,
        request.headers.get(hdrs.CONTENT_TYPE, ""),
        request[PRINCIPAL],
        request.headers.get(IDEMPOTENCY_KEY),
        least_bytes=least_bytes,
    )
    message = "Job successfully uploaded" if is_new else "Job already uploaded"
    answer = JobAnswer(job.id, job.status, message)
    if job.array_id is not None:
        number = f"Array of {job.array_size} tasks"
        message = f"{number} successfully uploaded" if is_new else f"{number} already uploaded"
        ids = array_ids(job.array_id, job.array_size)
        answer = ArrayAnswer(job.id, job.status, message, array=ids)
    return json_response(
        answer,
        status=201 if is_new else 200,
        headers={hdrs.LOCATION: f"/jobs/{job.id}"},
    )
