"""Asynchronous client of jo-server."""

import os
import secrets
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from job_orchestrator.common.messages.jobs import Job, JobDetail
from job_orchestrator.common.status import JobStatus
from job_orchestrator.sdk import calls
from job_orchestrator.sdk.arrays import ArrayCalls
from job_orchestrator.sdk.connection import Connection, Trouble
from job_orchestrator.sdk.downloads import Download
from job_orchestrator.sdk.models import Change, Submitted
from job_orchestrator.sdk.result_calls import ResultCalls
from job_orchestrator.sdk.streams import changes, job_detail, log_blocks
from job_orchestrator.sdk.threads import in_thread
from job_orchestrator.sdk.uploads import Files, Progress, Upload, collect, form_fields

PATIENCE_S = 60.0

LogStream = Literal["stdout", "stderr"]
ResultKind = Literal["all", "new"]


class AsyncClient(ArrayCalls, ResultCalls):
    """Connection to a jo-server, for asyncio programs.

    Create one for the program, not one for each call: it keeps its connections. Use it as a context
    manager, or ``close`` it. Every call raises a subclass of ``ApiError`` when it fails.

        async with AsyncClient("http://localhost:5000") as client:
            job = await client.submit("example", "my-folder", user_id=1)
            ended = await client.wait(job.id)
            await client.download(job.id, "results.zip")

    Args:
        url: URL of the server, such as ``http://localhost:5000``.
        token: Token for the server, sent as ``Authorization: Bearer``; None if it requires none.
        patience_s: How long a call is retried while the server is unavailable, during a restart for
            example, before it fails with ``ServerUnavailable``; 0 for no retries.
        on_trouble: Called with each failure that will be retried and the seconds until the retry.
            An exception that it raises ends the call.

    Raises:
        Refused: ``url`` is not a URL of a server.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        patience_s: float = PATIENCE_S,
        on_trouble: Trouble | None = None,
    ) -> None:
        super().__init__(Connection(url, token, patience_s, on_trouble))

    async def __aenter__(self) -> Self:
        """Return the client. The first call opens a connection."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close all connections."""
        await self.close()

    async def close(self) -> None:
        """Close all connections. A later call opens new ones."""
        await self._connection.close()

    async def submit(
        self,
        service: str,
        files: Files,
        *,
        user_id: int,
        name: str | None = None,
        tag: str | None = None,
        priority: int | None = None,
        time_limit: float | str | None = None,
        cpus: float | None = None,
        memory: int | str | None = None,
        gpus: int | None = None,
        callback_url: str | None = None,
        outputs: Iterable[str] = (),
        results: ResultKind | None = None,
        after: int | Iterable[int] = (),
        afterany: int | Iterable[int] = (),
        array: str | None = None,
        idempotency_key: str | None = None,
        progress: Progress | None = None,
    ) -> Submitted:
        """Submit a job.

        When the call returns, the job is safe on the server's disk. A submit whose answer is lost
        is retried and still creates one job, which the server recognizes by ``idempotency_key``.

        Args:
            service: Name of the service that runs the job.
            files: Files of the job, one of which is ``run.sh``: a folder, a list of paths, or a
                mapping such as ``{"run.sh": b"wc in.txt", "in.txt": Path("upload.txt")}``.
            user_id: Owner of the job.
            name: Name of the job for people, up to 200 characters.
            tag: Word by which lists can be filtered, up to 100 characters.
            priority: From -100 to 100. Jobs of the same user with a higher priority start first.
            time_limit: How long the job may run, in seconds or as a text such as ``"5m"``.
            cpus: CPUs that the job needs; it gets no more.
            memory: Memory that it needs, in bytes or as a text such as ``"4GB"``.
            gpus: GPUs that it needs, which are its own while it runs.
            callback_url: URL that the server calls when the job has ended.
            outputs: Glob patterns of the files that the results have, such as ``results/*.csv`` or
                ``**/*.log``; a pattern that names a folder takes all that is in it. Without
                patterns the results have all files.
            results: ``"new"`` leaves out the uploaded files that the script did not change.
            after: Id of a job, or ids, that must complete before this one starts. It gets their
                results in ``.inputs/<id>/``, and fails if one of them does not complete.
            afterany: Id of a job, or ids, that must end before, in any state. The id of an array
                stands for all of its tasks, here and in ``after``.
            array: Indexes of the tasks of an array, such as ``"1-100"`` or ``"1,3,7-9"``; with
                ``"1-100%5"`` at most five run at the same time. Each task is a job of its own that
                runs the same files, with its index in ``JO_ARRAY_INDEX``.
            idempotency_key: Two submits of a user with the same key create one job. The default is
                a random key for each call. Give a key, such as the id of a form, where a user may
                send the same form twice.
            progress: Called with the bytes sent and their total. A retry starts at 0 again.

        Returns:
            Id and state of the job; of an array, those of its first task, and the ``ids`` of all.

        Raises:
            UnusableFiles: The files can't be sent; nothing has been sent.
            Refused: The server rejects the service, a file or an option.
            QuotaExceeded: The user has too many jobs or bytes on the server.
        """
        fields = {"user_id": user_id, "service": service, "name": name, "tag": tag}
        fields |= {"priority": priority, "time_limit": time_limit, "callback_url": callback_url}
        fields |= {"cpus": cpus, "memory": memory, "gpus": gpus, "results": results}
        fields |= {"after": _ids(after), "afterany": _ids(afterany), "array": array}
        given = form_fields(fields, outputs=[outputs] if isinstance(outputs, str) else outputs)
        upload = Upload(await in_thread(collect, files), given, progress)
        key = idempotency_key or secrets.token_urlsafe(24)
        return await calls.submit(self._connection, upload, key)

    async def job(self, job_id: int) -> JobDetail:
        """Fetch a job with its history; ``waiting`` says why it is queued.

        Raises:
            JobNotFound: No job has this id, or it belongs to another user.
        """
        return await job_detail(self._connection, job_id)

    async def jobs(
        self,
        *,
        user_id: int | None = None,
        service: str | None = None,
        status: JobStatus | Iterable[JobStatus] | None = None,
        tag: str | None = None,
        array: int | None = None,
    ) -> AsyncGenerator[Job]:
        """Yield jobs, newest first. The server is asked for one page at a time.

            async for job in client.jobs(user_id=1, status=JobStatus.RUNNING):
                print(job.id)

        Args:
            user_id: Only jobs of this user.
            service: Only jobs of this service.
            status: Only jobs in this state, or in one of these states.
            tag: Only jobs with this tag.
            array: Only tasks of this array.

        Yields:
            Jobs that match all given filters.
        """
        statuses = [status] if isinstance(status, str) else list(status or ())
        found = calls.jobs(self._connection, user_id, service, statuses, tag, array)
        async with aclosing(found):
            async for job in found:
                yield job

    async def wait(self, job_id: int, *, timeout_s: float | None = None) -> JobDetail:
        """Wait until a job has ended, in any final state.

        The server answers the moment that the job ends; nothing is polled. The server may be
        restarted during the wait.

        Args:
            job_id: Id of the job.
            timeout_s: Seconds to wait at most; None for no limit.

        Returns:
            The job in its final state.

        Raises:
            JobNotFound: No job has this id, or it belongs to another user.
            NotEnded: ``timeout_s`` has passed; the job continues.
        """
        return await calls.wait(self._connection, job_id, timeout_s)

    async def watch(self, job_id: int) -> AsyncGenerator[Job]:
        """Yield a job now and after each change, until it has ended.

        The server pushes the changes; nothing is polled, and no change is missed when the
        connection breaks.

        Yields:
            The job; the last one has its final state.

        Raises:
            JobNotFound: No job has this id, or it belongs to another user.
        """
        stream = changes(self._connection, f"/jobs/{job_id}/events", {})
        async with aclosing(stream):
            async for change in stream:
                if isinstance(change, Job):
                    yield change
                    if change.has_ended:
                        return

    async def events(
        self, *, user_id: int | None = None, on_open: Callable[[], None] | None = None
    ) -> AsyncGenerator[Change]:
        """Yield every change of every job from now on, without end.

        The server pushes the changes; nothing is polled, and no change is missed when the
        connection breaks.

        Args:
            user_id: Only jobs of this user. Without it, an administrator also gets the lists of
                services and of compute clients, immediately and after each change of them.
            on_open: Called when the stream has been opened. A list that is requested from then on
                is continued by the stream without a gap.

        Yields:
            A ``Job``, a list of ``Service`` or a list of ``ComputeClient``.
        """
        params = {} if user_id is None else {"user_id": user_id}
        stream = changes(self._connection, "/events", params, on_open)
        async with aclosing(stream):
            async for change in stream:
                yield change

    async def logs(
        self,
        job_id: int,
        *,
        stream: LogStream = "stdout",
        offset: int = 0,
        follow: bool = False,
        on_rerun: Callable[[int], None] | None = None,
    ) -> AsyncGenerator[bytes]:
        """Yield what a job has printed. A broken connection is resumed at the byte where it broke.

        Args:
            job_id: Id of the job.
            stream: ``"stdout"`` or ``"stderr"``.
            offset: Number of bytes to skip.
            follow: Wait for the job to start and yield its output until it has ended, instead of
                ending after the output so far.
            on_rerun: Called with the number of the attempt when the job is run again, because its
                client was lost. The output then restarts at its beginning.

        Yields:
            Blocks of bytes, not split at lines.

        Raises:
            JobNotFound: No job has this id, or it belongs to another user.
        """
        blocks = log_blocks(self._connection, job_id, stream, offset, follow, on_rerun)
        async with aclosing(blocks):
            async for block in blocks:
                yield block

    async def download(
        self,
        job_id: int,
        target: str | os.PathLike[str],
        *,
        partial: bool = False,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> Path:
        """Download the results of a job, a ZIP, into a file.

        The file gets its name when it is complete; until then an existing file is left unchanged. A
        broken connection is resumed at the byte where it broke.

        Args:
            job_id: Id of the job.
            target: Path of the file to write.
            partial: Download what there is: the current work folder of a running job, or the output
                of a job that failed.
            overwrite: Replace an existing file.
            progress: Called with the bytes received and their total.

        Returns:
            The path of the file.

        Raises:
            NotCompleted: The job is not Completed, and ``partial`` is False.
            OutputNotFound: There is nothing to download.
            JobNotFound: No job has this id, or it belongs to another user.
            LocalStorageFailed: The file can't be written, or exists and ``overwrite`` is False.
        """
        route = "download_partial" if partial else "download"
        path = Path(target)
        await Download(self._connection, f"/{route}/{job_id}", progress).to(
            path, overwrite=overwrite
        )
        return path

    async def cancel(self, job_id: int) -> Submitted:
        """Cancel a job. When the call returns, all processes of a Killed job have ended.

        Returns:
            Id and state of the job. If that is not Killed, its machine does not answer at present;
            the server ends the job as soon as it does.

        Raises:
            AlreadyEnded: The job had ended before.
            JobNotFound: No job has this id, or it belongs to another user.
        """
        return await calls.cancel(self._connection, job_id)

    async def change(
        self, job_id: int, *, held: bool | None = None, priority: int | None = None
    ) -> JobDetail:
        """Hold or release a queued job, or change its priority (-100 to 100).

        Raises:
            AlreadyEnded: The job has left the queue; the message names its state.
        """
        return await calls.change(self._connection, job_id, held=held, priority=priority)


def _ids(ids: int | Iterable[int]) -> str | None:
    """Return ids with commas, None if there are none."""
    return ",".join(map(str, [ids] if isinstance(ids, int) else ids)) or None
