"""GET /jobs, GET /jobs/{id}, GET /jobs/{id}/files."""

from aiohttp import web

from job_orchestrator.common.web.answers import json_response
from job_orchestrator.server import keys
from job_orchestrator.server.web.parameters import cursor, job_filter, job_id, page_size


async def jobs(request: web.Request) -> web.Response:
    """List jobs.

    ---
    summary: Jobs, the newest first
    description: >-
      All conditions must hold. With a user's token only that user's jobs are listed. A page ends
      with a cursor in next; give it as after to get the page that follows.
    tags: [jobs]
    parameters:
      - {name: user_id, in: query, schema: {type: integer}}
      - {name: service, in: query, schema: {type: string}}
      - name: status
        in: query
        description: One state, or several separated by commas
        schema: {type: string}
        example: Queued,Running
      - {name: tag, in: query, schema: {type: string}}
      - {name: limit, in: query, schema: {type: integer, minimum: 1, maximum: 500, default: 50}}
      - {name: after, in: query, description: The next of the page before, schema: {type: string}}
    responses:
      "200":
        description: A page
        content:
          application/json:
            schema: {$ref: "#/components/schemas/JobPage"}
      "403":
        description: The token is for another user
    """
    page = await request.app[keys.QUERIES].jobs(
        job_filter(request), cursor(request), page_size(request)
    )
    return json_response(page)


async def job(request: web.Request) -> web.Response:
    """Tell all about a job.

    ---
    summary: A job with its history
    description: >-
      History says when it got each state, why, and for how many seconds it stayed there. While the
      job is Queued, queue tells how many of its user's jobs are ahead, and an estimate of the wait
      from how long the service's jobs lately took.
    tags: [jobs]
    parameters:
      - {name: id, in: path, required: true, schema: {type: integer}, example: 1}
    responses:
      "200":
        description: The job
        content:
          application/json:
            schema: {$ref: "#/components/schemas/JobDetail"}
      "404":
        description: There is no such job
    """
    return json_response(await request.app[keys.QUERIES].job(job_id(request)))


async def files(request: web.Request) -> web.Response:
    """List the files of a job's output.

    ---
    summary: The files in a job's output
    description: At most 10000 of them; the output itself is at /download and /download_partial.
    tags: [jobs]
    parameters:
      - {name: id, in: path, required: true, schema: {type: integer}, example: 1}
    responses:
      "200":
        description: Their paths and sizes in bytes
        content:
          application/json:
            schema: {$ref: "#/components/schemas/ResultFiles"}
      "404":
        description: There is no such job, or it has no output
    """
    found = await request.app[keys.QUERIES].store.get(job_id(request))
    return json_response(await request.app[keys.RESULTS].listing(found))
