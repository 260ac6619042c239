"""GET /download/{id} and GET /download_partial/{id}."""

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter

from orchestrator_common.models import JobAnswer
from orchestrator_common.status import JobStatus
from orchestrator_common.threads import in_thread
from orchestrator_common.web import json_response
from orchestrator_server import keys
from orchestrator_server.errors import OutputNotFound
from orchestrator_server.store import Job
from orchestrator_server.web.parameters import job_id, wait_s

ZIP = "application/zip"


async def download(request: web.Request) -> web.StreamResponse:
    """Give the results of a job, or its state.

    ---
    summary: Results of a job, or its state
    description: >-
      A ZIP once the job is Completed, JSON in any other state: look at Content-Type. With wait the
      answer comes when the job has ended, at the latest after so many seconds. Ranges are served.
    tags: [jobs]
    parameters:
      - {name: id, in: path, required: true, schema: {type: integer}, example: 1}
      - name: wait
        in: query
        description: Seconds to wait for the end of the job
        schema: {type: number, minimum: 0, maximum: 60}
    responses:
      "200":
        description: The results, or the state and the reason for it
        content:
          application/zip:
            schema: {type: string, format: binary}
          application/json:
            schema: {$ref: "#/components/schemas/JobAnswer"}
            example: {id: 1, status: Running, message: run.sh is executing}
      "206":
        description: The range of the results that was asked for
        content:
          application/zip:
            schema: {type: string, format: binary}
      "400":
        description: The id or wait is no such number
        content:
          application/json:
            schema: {$ref: "#/components/schemas/JobAnswer"}
      "404":
        description: There is no such job
        content:
          application/json:
            schema: {$ref: "#/components/schemas/JobAnswer"}
            example: {id: 7, status: Unknown, message: Job 7 not found}
    """
    submission = request.app[keys.SUBMISSION]
    job = await submission.settled(job_id(request), wait_s(request))
    if job.status is JobStatus.COMPLETED:
        return await _results(request, job)
    return json_response(JobAnswer(job.id, job.status, await submission.explain(job)))


async def download_partial(request: web.Request) -> web.StreamResponse:
    """Give what there is of a job's output.

    ---
    summary: What there is of a job's output
    description: >-
      The work folder of a running job as it is now, or the kept output of one that ended, failed
      or terminated ones included.
    tags: [jobs]
    parameters:
      - {name: id, in: path, required: true, schema: {type: integer}, example: 1}
    responses:
      "200":
        description: The output so far
        content:
          application/zip:
            schema: {type: string, format: binary}
      "404":
        description: There is no such job, or it was never given to a client
        content:
          application/json:
            schema: {$ref: "#/components/schemas/JobAnswer"}
      "502":
        description: The job's client can't be reached or fails
        content:
          application/json:
            schema: {$ref: "#/components/schemas/JobAnswer"}
      "504":
        description: The job's client doesn't answer in time
        content:
          application/json:
            schema: {$ref: "#/components/schemas/JobAnswer"}
    """
    submission = request.app[keys.SUBMISSION]
    job = await submission.settled(job_id(request), 0)
    if job.has_output:
        return await _results(request, job)
    client, dest_id = submission.payload_of(job)
    async with client.api.open_partial(dest_id) as source:
        response = web.StreamResponse(headers=_headers(job, "partial"))
        response.content_type = ZIP
        response.content_length = source.content_length
        await response.prepare(request)
        async for block in source.content.iter_any():
            await response.write(block)
        await response.write_eof()
        return response


class ResultsResponse(web.FileResponse):
    """A file that also honours an If-Range with an ETag, of which aiohttp reads only dates.

    Without this, a download that is resumed on other results would be made of two halves.
    """

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Leave out the range if the results are not those that the ETag names."""
        validator = request.headers.get(hdrs.IF_RANGE, "")
        if hdrs.RANGE in request.headers and validator.endswith('"'):
            status = await in_thread(self._path.stat)
            if validator != f'"{status.st_mtime_ns:x}-{status.st_size:x}"':
                headers = request.headers.copy()
                del headers[hdrs.RANGE]
                request = request.clone(headers=headers)
        return await super().prepare(request)


async def _results(request: web.Request, job: Job) -> web.FileResponse:
    path = request.app[keys.SUBMISSION].result(job)
    if not await in_thread(path.is_file):
        raise OutputNotFound(f"The results of job {job.id} are gone from the server's disk")
    headers = {**_headers(job, "results"), hdrs.CONTENT_TYPE: ZIP}
    return ResultsResponse(path, headers=headers)


def _headers(job: Job, what: str) -> dict[str, str]:
    return {hdrs.CONTENT_DISPOSITION: f'attachment; filename="job-{job.id}-{what}.zip"'}
