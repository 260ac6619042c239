"""Calls about single files of a job's results."""

import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

from job_orchestrator.common.messages.jobs import ResultFiles
from job_orchestrator.sdk.connection import Connection, read_all
from job_orchestrator.sdk.downloads import Download
from job_orchestrator.sdk.errors import (
    OutputNotFound,
    Refused,
    ResultsDamaged,
    ServerUnavailable,
)
from job_orchestrator.sdk.models import decode
from job_orchestrator.sdk.uploads import Progress

MAX_READ_BYTES = 64 << 20
"""Default limit of a file that is read into memory."""


class ResultCalls:
    """Base of ``AsyncClient``: the calls about the files of a job's results."""

    _connection: Connection

    async def files(self, job_id: int) -> ResultFiles:
        """List the files in the results of a job.

        Returns:
            Paths and sizes of the files.

        Raises:
            OutputNotFound: The job has no output.
            JobNotFound: No job has this id, or it belongs to another user.
        """
        body = await self._connection.call("GET", f"/jobs/{job_id}/files", read_all)
        return decode(body, ResultFiles, self._connection.url)

    async def stream_file(self, job_id: int, path: str) -> AsyncGenerator[bytes]:
        """Yield one file of a job's results, without the rest of the ZIP.

        A broken connection is resumed at the byte where it broke.

        Args:
            job_id: Id of the job.
            path: Path of the file, as ``files`` lists it.

        Yields:
            Blocks of bytes.

        Raises:
            OutputNotFound: The job has no output, or no such file.
            JobNotFound: No job has this id, or it belongs to another user.
        """
        retries = self._connection.retries()
        done, etag, size = 0, "", -1
        while done != size:
            headers = {"Range": f"bytes={done}-", "If-Range": etag} if done else {}
            try:
                async with self._connection.open(
                    "GET", _route(job_id, path), headers=headers
                ) as response:
                    # A server may send the whole file again.
                    at = done if response.status == HTTPStatus.PARTIAL_CONTENT else 0
                    if done and response.headers.get("ETag", "") != etag:
                        raise ResultsDamaged(
                            f"{path} of job {job_id} changed while it was read; read it again"
                        )
                    etag = response.headers.get("ETag", "")
                    size = at + (response.content_length or 0)
                    async for block in response.content.iter_any():
                        fresh = block[max(done - at, 0) :]
                        at += len(block)
                        if fresh:
                            retries.reset()
                            done += len(fresh)
                            yield fresh
            except ServerUnavailable as error:
                await retries.wait_after(error)

    async def read_file(self, job_id: int, path: str, *, max_bytes: int = MAX_READ_BYTES) -> bytes:
        """Return the content of one file of a job's results.

        Args:
            job_id: Id of the job.
            path: Path of the file, as ``files`` lists it.
            max_bytes: Limit of the size, because the content is kept in memory.

        Raises:
            Refused: The file is larger than ``max_bytes``.
            OutputNotFound: The job has no output, or no such file.
            JobNotFound: No job has this id, or it belongs to another user.
        """
        content = bytearray()
        async with aclosing(self.stream_file(job_id, path)) as blocks:
            async for block in blocks:
                content += block
                if len(content) > max_bytes:
                    raise Refused(
                        f"{path} of job {job_id} is larger than {max_bytes} bytes: download it with"
                        " download_file, or give a larger max_bytes"
                    )
        return bytes(content)

    async def download_file(
        self,
        job_id: int,
        path: str,
        target: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> Path:
        """Download one file of a job's results. The rules for files are those of ``download``.

        Args:
            job_id: Id of the job.
            path: Path of the file, as ``files`` lists it.
            target: Path of the file to write.
            overwrite: Replace an existing file.
            progress: Called with the bytes received and their total.

        Returns:
            The path of the written file.

        Raises:
            OutputNotFound: The job has no output, or no such file.
            JobNotFound: No job has this id, or it belongs to another user.
            LocalStorageFailed: The file can't be written, or exists and ``overwrite`` is False.
        """
        download = Download(self._connection, _route(job_id, path), progress, may_be_state=False)
        await download.to(Path(target), overwrite=overwrite)
        return Path(target)


def _route(job_id: int, path: str) -> str:
    """Return the route to a file. Raises ``OutputNotFound`` for a path that no file can have.

    Components such as ``..`` would lead to another route, of another job for example.
    """
    if not all(part not in ("", ".", "..") for part in path.split("/")):
        raise OutputNotFound(
            f"{path[:200]!r} is not the path of a file in the results of job {job_id}"
        )
    return f"/jobs/{job_id}/files/{quote(path, safe='/')}"
