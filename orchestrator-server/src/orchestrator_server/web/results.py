"""The kept results of a job as an answer: whole, in ranges, or not at all if they are the same."""

from email.utils import formatdate
from pathlib import Path

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter

from orchestrator_common.small_file import read_if_small
from orchestrator_common.threads import in_thread
from orchestrator_server.errors import OutputNotFound
from orchestrator_server.store import Job

ZIP = "application/zip"

_CONDITIONS = (
    hdrs.RANGE,
    hdrs.IF_MATCH,
    hdrs.IF_NONE_MATCH,
    hdrs.IF_MODIFIED_SINCE,
    hdrs.IF_UNMODIFIED_SINCE,
)


async def results(request: web.Request, job: Job, path: Path) -> web.StreamResponse:
    """Answer with the results in ``path``. Raises ``OutputNotFound`` if they are gone."""
    headers = {**attachment(job, "results"), hdrs.CONTENT_TYPE: ZIP}
    try:
        small = await in_thread(read_if_small, path)
    except FileNotFoundError as error:
        raise OutputNotFound(
            f"The results of job {job.id} are gone from the server's disk"
        ) from error
    if small is None or any(header in request.headers for header in _CONDITIONS):
        return ResultsResponse(path, headers=headers)
    return web.Response(
        body=small.content,
        headers={
            **headers,
            hdrs.ETAG: _etag(small.modified_ns, len(small.content)),
            hdrs.LAST_MODIFIED: formatdate(small.modified_ns // 10**9, usegmt=True),
            hdrs.ACCEPT_RANGES: "bytes",
        },
    )


def attachment(job: Job, what: str) -> dict[str, str]:
    """The header by which browsers save the answer under a good name."""
    return {hdrs.CONTENT_DISPOSITION: f'attachment; filename="job-{job.id}-{what}.zip"'}


def _etag(modified_ns: int, size: int) -> str:
    # As aiohttp makes it for files: the same file has the same one, however it is sent.
    return f'"{modified_ns:x}-{size:x}"'


class ResultsResponse(web.FileResponse):
    """A file that also honours an If-Range with an ETag, of which aiohttp reads only dates.

    Without this, a download that is resumed on other results would be made of two halves.
    """

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Leave out the range if the results are not those that the ETag names."""
        validator = request.headers.get(hdrs.IF_RANGE, "")
        if hdrs.RANGE in request.headers and validator.endswith('"'):
            status = await in_thread(self._path.stat)
            if validator != _etag(status.st_mtime_ns, status.st_size):
                headers = request.headers.copy()
                del headers[hdrs.RANGE]
                request = request.clone(headers=headers)
        return await super().prepare(request)
