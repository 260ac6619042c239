"""Serves the results of a job: complete, as a byte range (206), or 304 if the copy is current."""

import contextlib
import os
import re
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

ZIP = "application/zip"

_CONDITIONS = (
    hdrs.RANGE,
    hdrs.IF_MATCH,
    hdrs.IF_NONE_MATCH,
    hdrs.IF_MODIFIED_SINCE,
    hdrs.IF_UNMODIFIED_SINCE,
)


_ONE_RANGE = re.compile(r"bytes=[ \t]*(\d*)-(\d*)[ \t]*", re.ASCII | re.IGNORECASE)
_MAX_DIGITS = 18


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
    """Return the header that gives the downloaded file its name."""
    return {hdrs.CONTENT_DISPOSITION: f'attachment; filename="job-{job.id}-{what}.zip"'}


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
                request = _with_usable_range(request, status)
        with self._while_valid():
            return await super().prepare(request)


def _with_usable_range(request: web.BaseRequest, status: os.stat_result) -> web.BaseRequest:
    headers = request.headers.copy()
    asked = headers.pop(hdrs.RANGE)
    if _is_unchanged(request, status):
        wanted = _usable_range(asked, status.st_size)
        if wanted is not None:
            headers[hdrs.RANGE] = wanted
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


def _usable_range(header: str, size: int) -> str | None:
    """Return a Range header in a form that aiohttp reads as RFC 9110, section 14, defines it.

    Returns None if the header must be ignored: for other units, for invalid ranges, and for
    several ranges. aiohttp answers all of these with 416, serves the whole file for its last 0
    bytes, and fails on very long numbers. A range that can't be satisfied starts at the end of the
    file, which aiohttp answers with 416.
    """
    match = _ONE_RANGE.fullmatch(header)
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return f"bytes={size - min(_number(last), size)}-"
    if not last:
        return f"bytes={min(_number(first), size)}-"
    if _number(last) < _number(first):
        return f"bytes={size}-"
    return f"bytes={min(_number(first), size)}-{min(_number(last), size)}"


def _number(digits: str) -> int:
    """Return the value of ``digits``, or a number beyond the end of any file if it is too long."""
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= _MAX_DIGITS else 10**_MAX_DIGITS
