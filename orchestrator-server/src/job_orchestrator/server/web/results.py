"""Routes to download the results of a job, or the output that it has so far.

Results are sent in full, as a byte range (206), or not at all if the copy of the reader is current
(304).
"""

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import assert_never

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter

from job_orchestrator.common.messages.jobs import JobAnswer
from job_orchestrator.common.protocol.digests import repr_digest
from job_orchestrator.common.protocol.headers import REPR_DIGEST
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.status import JobStatus
from job_orchestrator.common.web.answers import json_response
from job_orchestrator.common.web.streaming import send, started
from job_orchestrator.server import keys
from job_orchestrator.server.files.base import LocalFile, SmallResult
from job_orchestrator.server.model import Job
from job_orchestrator.server.web.access import while_token_is_valid
from job_orchestrator.server.web.conditions import (
    CONDITIONAL,
    Version,
    failed_condition,
    with_readable_range,
)
from job_orchestrator.server.web.long_polls import LONG_POLLS
from job_orchestrator.server.web.parameters import job_id, sees_details, wait_s

ZIP = "application/zip"


async def download(request: web.Request) -> web.StreamResponse:
    """Return the results of a completed job, or the state of any other."""
    queries, number, timeout_s = request.app[keys.QUERIES], job_id(request), wait_s(request)
    if timeout_s:
        sent = await request.app[LONG_POLLS].wait(request, number, timeout_s)
        if sent is not None:
            return sent
    job = await queries.store.get(number)
    if job.status is JobStatus.COMPLETED:
        return await results_response(request, job)
    reason = await queries.explain(job, details=sees_details(request))
    return json_response(JobAnswer(job.id, job.status, reason))


async def download_partial(request: web.Request) -> web.StreamResponse:
    """Return the output that a job has so far."""
    job = await request.app[keys.QUERIES].store.get(job_id(request))
    if job.has_output:
        return await results_response(request, job)
    client, dest_id = request.app[keys.RESULTS].payload_of(job)
    response = web.StreamResponse(headers=_attachment(job, "partial"))
    response.content_type = ZIP

    async def blocks() -> AsyncGenerator[bytes, None]:
        async with client.transport.open_partial(dest_id) as output:
            response.content_length = output.size
            if output.sha256 is not None:
                response.headers[REPR_DIGEST] = repr_digest(output.sha256)
            # The client has answered: an error from here on can't become an error response.
            yield b""
            async for block in output.blocks:
                yield block

    return await send(request, response, await started(blocks()))


async def results_response(request: web.Request, job: Job) -> web.StreamResponse:
    """Answer with the results of a job. Raises ``OutputNotFound``."""
    headers = {**_attachment(job, "results"), hdrs.CONTENT_TYPE: ZIP}
    if job.output_sha256 is not None:
        headers[REPR_DIGEST] = repr_digest(job.output_sha256)
    match await request.app[keys.RESULTS].served(job):
        case LocalFile() as file:
            return _local_file(request, file, headers)
        case SmallResult() as small:
            return _in_memory(request, small, headers)
        case unserved:
            assert_never(unserved)


def _attachment(job: Job, what: str) -> dict[str, str]:
    """Return the header that gives the downloaded file its name."""
    return {hdrs.CONTENT_DISPOSITION: f'attachment; filename="job-{job.id}-{what}.zip"'}


def _local_file(
    request: web.Request, file: LocalFile, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Send a small file from memory and a large one with sendfile."""
    if file.content is None:
        return ResultsResponse(file.path, headers, partial(while_token_is_valid, request))
    return _in_memory(request, SmallResult(file.content, file.modified_ns), headers)


def _in_memory(
    request: web.Request, result: SmallResult, headers: Mapping[str, str]
) -> web.Response:
    """Answer with results in memory, or the requested range of them, as with a file."""
    version = Version(result.modified_ns, len(result.content))
    headers = {**headers, **version.headers, hdrs.ACCEPT_RANGES: "bytes"}
    if not request.headers.keys() & CONDITIONAL:
        return web.Response(body=result.content, headers=headers)
    refusal = failed_condition(request, version)
    if refusal is not None:
        return web.Response(status=refusal, headers=version.headers)
    wanted = version.range_of(request)
    if wanted is None:
        return web.Response(body=result.content, headers=headers)
    if not wanted:
        unsatisfied = {hdrs.CONTENT_RANGE: f"bytes */{version.size}"}
        return web.Response(status=416, headers=unsatisfied)
    headers[hdrs.CONTENT_RANGE] = f"bytes {wanted.start}-{wanted.stop - 1}/{version.size}"
    return web.Response(
        status=206, body=result.content[wanted.start : wanted.stop], headers=headers
    )


class ResultsResponse(web.FileResponse):
    """Response with a file, or with a range of it as RFC 9110 defines it.

    aiohttp reads only dates in If-Range. Here ETags are compared as well; otherwise a download that
    is resumed after the results have changed would consist of parts of two files.
    """

    def __init__(
        self,
        path: Path,
        headers: Mapping[str, str],
        while_valid: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Create the response. ``while_valid`` is entered while the file is sent.

        The file is sent after the handler has returned.
        """
        super().__init__(path, headers=headers)
        self._while_valid = while_valid

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the requested range, or the complete file if If-Range names other results."""
        if hdrs.RANGE in request.headers:
            with contextlib.suppress(FileNotFoundError):  # aiohttp answers 404
                status = await in_thread(self._path.stat)
                version = Version(status.st_mtime_ns, status.st_size)
                request = with_readable_range(request, version)
        with self._while_valid():
            return await super().prepare(request)
