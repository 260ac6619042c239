"""Calls about arrays: all tasks together."""

import asyncio
import os
from pathlib import Path

from job_orchestrator.common.messages.jobs import JobArray
from job_orchestrator.sdk.calls import CANCEL_TIMEOUT_S, MAX_WAIT_S
from job_orchestrator.sdk.connection import Connection, read_all
from job_orchestrator.sdk.downloads import Download
from job_orchestrator.sdk.errors import NotEnded
from job_orchestrator.sdk.models import decode
from job_orchestrator.sdk.service_calls import ServiceCalls
from job_orchestrator.sdk.streams import REOPEN_DELAY_S
from job_orchestrator.sdk.uploads import Progress


class ArrayCalls(ServiceCalls):
    """Base of ``AsyncClient``: the calls about arrays."""

    async def array(self, array_id: int) -> JobArray:
        """Fetch an array: its ids, and how many of its tasks are in each state.

        The id of an array is that of its first task.

        Raises:
            JobNotFound: No array has this id, or it belongs to another user.
        """
        return await _state(self._connection, array_id, 0.0)

    async def wait_array(self, array_id: int, *, timeout_s: float | None = None) -> JobArray:
        """Wait until all tasks of an array have ended, in any final state.

        Args:
            array_id: Id of the array.
            timeout_s: Seconds to wait at most; None for no limit.

        Returns:
            The array, with the number of tasks in each state.

        Raises:
            JobNotFound: No array has this id, or it belongs to another user.
            NotEnded: ``timeout_s`` has passed; the tasks continue.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    array = await _state(self._connection, array_id, MAX_WAIT_S)
                    if array.has_ended:
                        return array
                    # A server that is stopping answers early.
                    await asyncio.sleep(REOPEN_DELAY_S)
        except TimeoutError as error:
            raise NotEnded(
                f"Array {array_id} has not ended after {timeout_s:g} s; its tasks continue"
            ) from error

    async def download_array(
        self,
        array_id: int,
        target: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> Path:
        """Download the results of all Completed tasks of an array, as one ZIP.

        Each task has a folder, which is named after its index. ``MISSING.txt`` in the ZIP lists the
        other tasks, with the reasons.

        Args:
            array_id: Id of the array.
            target: Path of the file to write.
            overwrite: Replace an existing file.
            progress: Called with the bytes received; their total is not known.

        Returns:
            The path of the file.

        Raises:
            JobNotFound: No array has this id, or it belongs to another user.
            LocalStorageFailed: The file can't be written, or exists and ``overwrite`` is False.
        """
        path = Path(target)
        download = Download(self._connection, f"/arrays/{array_id}/download", progress)
        await download.to(path, overwrite=overwrite)
        return path

    async def cancel_array(self, array_id: int) -> JobArray:
        """Cancel all tasks of an array that have not ended.

        Returns:
            The array. A task that is still ``unended`` is on a machine that does not answer at
            present; the server ends it as soon as that machine does.

        Raises:
            JobNotFound: No array has this id, or it belongs to another user.
        """
        body = await self._connection.call(
            "POST", f"/arrays/{array_id}/terminate", read_all, read_timeout_s=CANCEL_TIMEOUT_S
        )
        return decode(body, JobArray, self.url)


async def _state(connection: Connection, array_id: int, wait_s: float) -> JobArray:
    body = await connection.call(
        "GET",
        f"/arrays/{array_id}",
        read_all,
        params={"wait": wait_s},
        read_timeout_s=MAX_WAIT_S + wait_s,
    )
    return decode(body, JobArray, connection.url)
