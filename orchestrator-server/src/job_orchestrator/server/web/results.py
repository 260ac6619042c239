"""Routes to download the results of a job, or the output that it has so far.

Results are sent in full, as a byte range (206), or not at all if the copy of the reader is current
(304).
"""

import contextlib
import os
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractContextManager
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import assert_never

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter

from job_orchestrator.common.messages import JobAnswer
from job_orchestrator.common.protocol.digests import repr_digest
from job_orchestrator.common.protocol.headers import REPR_DIGEST
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.status import JobStatus
from job_orchestrator.common.web.answers import json_response
from job_orchestrator.common.web.streaming import send, started
from job_orchestrator.server import keys
from job_orchestrator.server.files.base import LocalFile
from job_orchestrator.server.model import Job
from job_orchestrator.server.web.access import while_token_is_valid
from job_orchestrator.server.web.long_polls import LONG_POLLS
from job_orchestrator.server.web.parameters import job_id, sees_details, wait_s

ZIP = "application/zip"

_CONDITIONS = (
    hdrs.RANGE,
    hdrs.IF_MATCH,
    hdrs.IF_NONE_MATCH,
    hdrs.IF_MODIFIED_SINCE,
    hdrs.IF_UNMODIFIED_SINCE,
)

_ONE_RANGE = re.compile(
    r"bytes=[ \t]*(?:(?P<first>\d+)-(?P<last>\d*)|-(?P<suffix>\d+))[ \t]*",
    re.ASCII | re.IGNORECASE,
)


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
        case unserved:
            assert_never(unserved)


def _attachment(job: Job, what: str) -> dict[str, str]:
    """Return the header that gives the downloaded file its name."""
    return {hdrs.CONTENT_DISPOSITION: f'attachment; filename="job-{job.id}-{what}.zip"'}


def _local_file(
    request: web.Request, file: LocalFile, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Send a small file from memory, unless aiohttp has to evaluate a condition or a range."""
    if file.content is None or any(header in request.headers for header in _CONDITIONS):
        return ResultsResponse(file.path, headers, partial(while_token_is_valid, request))
    return web.Response(
        body=file.content,
        headers={
            **headers,
            hdrs.ETAG: _etag(file.modified_ns, file.size),
            hdrs.LAST_MODIFIED: formatdate(file.modified_ns // 10**9, usegmt=True),
            hdrs.ACCEPT_RANGES: "bytes",
        },
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
                request = _with_readable_range(request, status)
        with self._while_valid():
            return await super().prepare(request)


def _with_readable_range(request: web.BaseRequest, status: os.stat_result) -> web.BaseRequest:
    """Return the request with a Range that aiohttp can read, or without one."""
    headers = request.headers.copy()
    requested = headers.pop(hdrs.RANGE)
    if _is_unchanged(request, status):
        readable = _readable_range(requested, status.st_size)
        if readable is not None:
            headers[hdrs.RANGE] = readable
    return request.clone(headers=headers)


def _is_unchanged(request: web.BaseRequest, status: os.stat_result) -> bool:
    """Return whether the results are those that If-Range names, or there is no If-Range."""
    validator = request.headers.get(hdrs.IF_RANGE)
    if validator is None:
        return True
    if validator.endswith('"'):
        return validator == _etag(status.st_mtime_ns, status.st_size)
    # aiohttp compares dates, and ignores an invalid date.
    return request.if_range is not None


def _etag(modified_ns: int, size: int) -> str:
    """Return the ETag that aiohttp computes for a file, so that both ways to send it agree."""
    return f'"{modified_ns:x}-{size:x}"'


def _readable_range(header: str, size: int) -> str | None:
    """Return a Range header that aiohttp reads as RFC 9110, section 14, defines it.

    Returns None if the header must be ignored: for other units, for invalid ranges, and for several
    ranges. aiohttp answers these with 416, serves the whole file for its last 0 bytes, and refuses
    very long numbers. A range that can't be satisfied starts at the end of the file or ends before
    its start; aiohttp answers both with 416.
    """
    match = _ONE_RANGE.fullmatch(header)
    if match is None:
        return None
    first, last, suffix = match.group("first", "last", "suffix")
    if suffix:
        return f"bytes={size - _at_most(size, suffix)}-"
    return f"bytes={_at_most(size, first)}-{_at_most(size, last) if last else ''}"


def _at_most(size: int, digits: str) -> int:
    """Return the value of ``digits``, or ``size`` if that is less."""
    # Not int(), which refuses more than 4300 digits. The size of a file is exact as a float.
    return int(min(float(digits), size))
