"""POST /terminate/{id}."""

from aiohttp import web

from job_orchestrator.common.messages import JobAnswer
from job_orchestrator.common.web.answers import json_response
from job_orchestrator.server import keys
from job_orchestrator.server.web.parameters import job_id


async def terminate(request: web.Request) -> web.Response:
    """End a job.

    ---
    summary: End a job
    description: >-
      A queued job ends at once. The answer for a running one comes when nothing of it runs any
      more. Its output so far is kept for download_partial.
    tags: [jobs]
    parameters:
      - {name: id, in: path, required: true, schema: {type: integer}, example: 1}
    responses:
      "200":
        description: The job is terminated
        content:
          application/json:
            schema: {$ref: "#/components/schemas/JobAnswer"}
            example: {id: 1, status: Killed, message: job terminated}
      "404":
        description: There is no such job
      "409":
        description: The job had already ended
        content:
          application/json:
            example: {id: 1, status: Completed, message: "Job 1 has already ended: it is Completed"}
      "502":
        description: The job's client can't be reached; the job is ended as soon as it can
      "504":
        description: The job's client doesn't answer; the job is ended as soon as it does
    """
    job = await request.app[keys.TERMINATION].terminate(job_id(request))
    return json_response(JobAnswer(job.id, job.status, "job terminated"))
