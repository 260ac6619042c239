"""The kept results of a job as an answer: whole, in ranges, or not at all if they are the same."""

import contextlib
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import assert_never

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter

from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.server import keys
from job_orchestrator.server.files.base import LocalFile
from job_orchestrator.server.model import Job
from job_orchestrator.server.web.access import while_token_is_valid
from job_orchestrator.server.web.ranges import usable_range

ZIP = "application/zip"

_CONDITIONS = (
    hdrs.RANGE,
    hdrs.IF_MATCH,
    hdrs.IF_NONE_MATCH,
    hdrs.IF_MODIFIED_SINCE,
    hdrs.IF_UNMODIFIED_SINCE,
)


async def results(request: web.Request, job: Job) -> web.StreamResponse:
    """Answer with the results of a job. Raises ``OutputNotFound``."""
    headers = {**attachment(job, "results"), hdrs.CONTENT_TYPE: ZIP}
    match await request.app[keys.RESULTS].served(job):
        case LocalFile() as file:
            return _local_file(request, file, headers)
        case unserved:
            assert_never(unserved)


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


def attachment(job: Job, what: str) -> dict[str, str]:
    """The header by which browsers save the answer under a good name."""
    return {hdrs.CONTENT_DISPOSITION: f'attachment; filename="job-{job.id}-{what}.zip"'}


class ResultsResponse(web.FileResponse):
    """A file of which ranges are sent as RFC 9110 has it.

    An If-Range with an ETag is honoured, of which aiohttp reads only dates: without it a download
    that is resumed on other results would be made of two halves.
    """

    def __init__(
        self,
        path: Path,
        headers: Mapping[str, str],
        while_valid: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """``while_valid``: what holds while it is sent, which is after the handler has returned."""
        super().__init__(path, headers=headers)
        self._while_valid = while_valid

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the part that is asked for, or all if that is of other results."""
        if hdrs.RANGE in request.headers:
            with contextlib.suppress(FileNotFoundError):  # aiohttp tells it
                status = await in_thread(self._path.stat)
                request = _with_usable_range(request, status)
        with self._while_valid():
            return await super().prepare(request)


def _with_usable_range(request: web.BaseRequest, status: os.stat_result) -> web.BaseRequest:
    headers = request.headers.copy()
    asked = headers.pop(hdrs.RANGE)
    if _still_the_same(request, status):
        wanted = usable_range(asked, status.st_size)
        if wanted is not None:
            headers[hdrs.RANGE] = wanted
    return request.clone(headers=headers)


def _still_the_same(request: web.BaseRequest, status: os.stat_result) -> bool:
    """Whether the results are those that If-Range names, if it names any."""
    validator = request.headers.get(hdrs.IF_RANGE)
    if validator is None:
        return True
    if validator.endswith('"'):
        return validator == _etag(status.st_mtime_ns, status.st_size)
    # aiohttp compares dates, and takes what is none for no condition.
    return request.if_range is not None


def _etag(modified_ns: int, size: int) -> str:
    """Return the ETag that aiohttp computes for a file, so that both ways to send it agree."""
    return f'"{modified_ns:x}-{size:x}"'
