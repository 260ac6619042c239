"""POST /upload."""

from aiohttp import hdrs, web

from job_orchestrator.common.errors import TooLarge
from job_orchestrator.common.messages import JobAnswer
from job_orchestrator.common.protocol.headers import IDEMPOTENCY_KEY
from job_orchestrator.common.web.answers import json_response
from job_orchestrator.server import keys

# What multipart may add to the files: part headers, mostly.
OVERHEAD_BYTES = 16 << 20


async def upload(request: web.Request) -> web.Response:
    """Submit a job.

    ---
    summary: Submit a job
    description: >-
      Every part with a file name is a file of the job; a name may be a relative path
      (data/input.pdb). One of them is run.sh, which is executed. The answer comes when the job is
      safely stored. With a user's token user_id may be left out.
    tags: [jobs]
    parameters:
      - name: Idempotency-Key
        in: header
        description: >-
          The same key by the same user gives the same job, as long as its files are kept: repeat an
          upload whose answer was lost
        schema: {type: string, minLength: 1, maxLength: 255}
    requestBody:
      required: true
      content:
        multipart/form-data:
          schema:
            type: object
            required: [file, service]
            properties:
              file:
                type: array
                items: {type: string, format: binary}
                description: run.sh and the other files
              user_id: {type: integer, description: Whose job it is, example: 1}
              service: {type: string, description: A configured service, example: example}
              name: {type: string, maxLength: 200, description: The user's own words}
              tag: {type: string, maxLength: 100, description: To find jobs that belong together}
              priority:
                type: integer
                minimum: -100
                maximum: 100
                default: 0
                description: Higher first, within the queue of this user
              time_limit:
                type: string
                description: Seconds, or a number with s, m, h or d; a job that runs longer is ended
                example: 30m
              callback_url:
                type: string
                description: Called with the job when it has ended; only hosts of CALLBACK_ALLOW
                example: https://portal.example.org/done
    responses:
      "200":
        description: The Idempotency-Key has a job already; nothing new was kept
        headers:
          Location: {schema: {type: string}, description: /jobs/<id>}
        content:
          application/json:
            schema: {$ref: "#/components/schemas/JobAnswer"}
            example: {id: 1, status: Running, message: Job already uploaded}
      "201":
        description: The job is queued
        headers:
          Location: {schema: {type: string}, description: /jobs/<id>}
        content:
          application/json:
            schema: {$ref: "#/components/schemas/JobAnswer"}
            example: {id: 1, status: Queued, message: Job successfully uploaded}
      "400":
        description: The message says what is missing or wrong; nothing was kept
        content:
          application/json:
            example: {id: 0, status: Unknown, message: Missing run.sh}
      "403":
        description: The token is that of another user; nothing was kept
        content:
          application/json:
            example: {id: 0, status: Unknown, message: This token is for user 7 only}
      "408":
        description: The upload stopped in the middle
      "429":
        description: The user has as many queued jobs as allowed; nothing was kept
        headers:
          Retry-After: {schema: {type: integer}, description: Seconds}
      "503":
        description: The user is sending as many jobs as may be sent at once; nothing was kept
        headers:
          Retry-After: {schema: {type: integer}, description: Seconds}
      "507":
        description: The disk is full, or the user's files take what they may; nothing was kept
    """
    limit = request.app[keys.SETTINGS].max_upload_bytes
    least_bytes = max(0, (request.content_length or 0) - OVERHEAD_BYTES)
    if least_bytes > limit:
        raise TooLarge(f"File too large: at most {limit} bytes in all")
    job, is_new = await request.app[keys.SUBMISSION].submit(
        request.content,
        request.headers.get(hdrs.CONTENT_TYPE, ""),
        request[keys.PRINCIPAL],
        request.headers.get(IDEMPOTENCY_KEY),
        least_bytes=least_bytes,
    )
    message = "Job successfully uploaded" if is_new else "Job already uploaded"
    return json_response(
        JobAnswer(job.id, job.status, message),
        status=201 if is_new else 200,
        headers={hdrs.LOCATION: f"/jobs/{job.id}"},
    )
