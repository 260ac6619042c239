"""Synchronous client of jo-server, for programs without asyncio: Flask, Django, scripts.

One background thread carries out the calls of all threads, and keeps the connections.
"""

import os
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from job_orchestrator.common.messages.explanation import Explanation
from job_orchestrator.common.messages.jobs import Job, JobDetail, ResultFiles
from job_orchestrator.common.messages.service import (
    ComputeClient,
    Identity,
    Minute,
    PauseList,
    Service,
    User,
)
from job_orchestrator.common.status import JobStatus
from job_orchestrator.sdk.client import PATIENCE_S, AsyncClient, LogStream, ResultKind
from job_orchestrator.sdk.connection import Trouble
from job_orchestrator.sdk.models import Change, Health, Submitted
from job_orchestrator.sdk.result_calls import MAX_READ_BYTES
from job_orchestrator.sdk.threads import LoopThread
from job_orchestrator.sdk.uploads import Files, Progress

R = TypeVar("R")

_clients: "weakref.WeakSet[Client]" = weakref.WeakSet()
_abandoned: "list[LoopThread[AsyncClient]]" = []


class Client:
    """Connection to a jo-server, for threads.

    The calls, their arguments and their errors are those of ``AsyncClient``. Create one for the
    program, as a global of a module for example, and use it from any thread. A program that forks,
    such as a web server with workers, may create it before the fork.

        client = Client("http://localhost:5000")
        job = client.submit("example", "my-folder", user_id=1)
        ended = client.wait(job.id)
        client.download(job.id, "results.zip")

    Callbacks (``progress``, ``on_trouble``, ``on_rerun``, ``on_open``) are called in the background
    thread of the client. They must not call the client. A call that is running when another thread
    closes the client raises ``RuntimeError``.

    Args:
        url: URL of the server, such as ``http://localhost:5000``.
        token: Token for the server, sent as ``Authorization: Bearer``; None if it requires none.
        patience_s: How long a call is retried while the server is unavailable; 0 for no retries.
        on_trouble: Called with each failure that will be retried and the seconds until the retry.

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
        def make() -> AsyncClient:
            return AsyncClient(url, token, patience_s=patience_s, on_trouble=on_trouble)

        self._make = make
        # Raises if the URL is wrong, before the first call.
        self._url = make().url
        self._lock = threading.Lock()
        self._running: LoopThread[AsyncClient] | None = None
        _clients.add(self)

    def __enter__(self) -> Self:
        """Return the client. The first call opens a connection."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close all connections."""
        self.close()

    def close(self) -> None:
        """Close all connections and end the calls of other threads. A later call opens new ones."""
        with self._lock:
            running, self._running = self._running, None
            if running is not None:
                self._at_exit.detach()
        if running is not None:
            running.close()

    @property
    def url(self) -> str:
        """URL of the server, without a trailing slash."""
        return self._url

    @property
    def answered(self) -> bool:
        """True once the server has answered since the connections were opened."""
        with self._lock:
            return self._running is not None and self._running.client.answered

    def submit(
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
        idempotency_key: str | None = None,
        progress: Progress | None = None,
    ) -> Submitted:
        """Submit a job; see ``AsyncClient.submit``."""
        return self._result(
            self._client.submit(
                service,
                files,
                user_id=user_id,
                name=name,
                tag=tag,
                priority=priority,
                time_limit=time_limit,
                cpus=cpus,
                memory=memory,
                gpus=gpus,
                callback_url=callback_url,
                outputs=outputs,
                results=results,
                after=after,
                afterany=afterany,
                idempotency_key=idempotency_key,
                progress=progress,
            )
        )

    def job(self, job_id: int) -> JobDetail:
        """Fetch a job with its history; see ``AsyncClient.job``."""
        return self._result(self._client.job(job_id))

    def jobs(
        self,
        *,
        user_id: int | None = None,
        service: str | None = None,
        status: JobStatus | Iterable[JobStatus] | None = None,
        tag: str | None = None,
    ) -> Iterator[Job]:
        """Yield jobs, newest first; see ``AsyncClient.jobs``."""
        return self._each(
            self._client.jobs(user_id=user_id, service=service, status=status, tag=tag)
        )

    def wait(self, job_id: int, *, timeout_s: float | None = None) -> JobDetail:
        """Wait until a job has ended; see ``AsyncClient.wait``."""
        return self._result(self._client.wait(job_id, timeout_s=timeout_s))

    def watch(self, job_id: int) -> Iterator[Job]:
        """Yield a job now and after each change, until it has ended; see ``AsyncClient.watch``."""
        return self._each(self._client.watch(job_id))

    def events(
        self, *, user_id: int | None = None, on_open: Callable[[], None] | None = None
    ) -> Iterator[Change]:
        """Yield every change of every job, without end; see ``AsyncClient.events``."""
        return self._each(self._client.events(user_id=user_id, on_open=on_open))

    def logs(
        self,
        job_id: int,
        *,
        stream: LogStream = "stdout",
        offset: int = 0,
        follow: bool = False,
        on_rerun: Callable[[int], None] | None = None,
    ) -> Iterator[bytes]:
        """Yield what a job has printed; see ``AsyncClient.logs``."""
        return self._each(
            self._client.logs(
                job_id, stream=stream, offset=offset, follow=follow, on_rerun=on_rerun
            )
        )

    def download(
        self,
        job_id: int,
        target: str | os.PathLike[str],
        *,
        partial: bool = False,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> Path:
        """Download the results of a job into a file; see ``AsyncClient.download``."""
        return self._result(
            self._client.download(
                job_id, target, partial=partial, overwrite=overwrite, progress=progress
            )
        )

    def files(self, job_id: int) -> ResultFiles:
        """List the files in the results of a job; see ``AsyncClient.files``."""
        return self._result(self._client.files(job_id))

    def stream_file(self, job_id: int, path: str) -> Iterator[bytes]:
        """Yield one file of a job's results; see ``AsyncClient.stream_file``."""
        return self._each(self._client.stream_file(job_id, path))

    def read_file(self, job_id: int, path: str, *, max_bytes: int = MAX_READ_BYTES) -> bytes:
        """Return one file of a job's results; see ``AsyncClient.read_file``."""
        return self._result(self._client.read_file(job_id, path, max_bytes=max_bytes))

    def download_file(
        self,
        job_id: int,
        path: str,
        target: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> Path:
        """Download one file of a job's results; see ``AsyncClient.download_file``."""
        return self._result(
            self._client.download_file(job_id, path, target, overwrite=overwrite, progress=progress)
        )

    def cancel(self, job_id: int) -> Submitted:
        """Cancel a job; see ``AsyncClient.cancel``."""
        return self._result(self._client.cancel(job_id))

    def explain(self, job_id: int) -> Explanation:
        """Fetch all on which the start of a job depends; see ``AsyncClient.explain``."""
        return self._result(self._client.explain(job_id))

    def change(
        self, job_id: int, *, held: bool | None = None, priority: int | None = None
    ) -> JobDetail:
        """Hold or release a queued job, or change its priority; see ``AsyncClient.change``."""
        return self._result(self._client.change(job_id, held=held, priority=priority))

    def pause(self, *, service: str | None = None, user_id: int | None = None) -> PauseList:
        """Pause a service or a user; see ``AsyncClient.pause``."""
        return self._result(self._client.pause(service=service, user_id=user_id))

    def resume(self, *, service: str | None = None, user_id: int | None = None) -> PauseList:
        """Resume a service or a user; see ``AsyncClient.resume``."""
        return self._result(self._client.resume(service=service, user_id=user_id))

    def services(self) -> list[Service]:
        """Fetch the services of the server; see ``AsyncClient.services``."""
        return self._result(self._client.services())

    def clients(self) -> list[ComputeClient]:
        """Fetch the jo-clients of the server; see ``AsyncClient.clients``."""
        return self._result(self._client.clients())

    def drain_client(self, name: str) -> list[ComputeClient]:
        """Give a client no more jobs; see ``AsyncClient.drain_client``."""
        return self._result(self._client.drain_client(name))

    def resume_client(self, name: str) -> list[ComputeClient]:
        """Give a drained client jobs again; see ``AsyncClient.resume_client``."""
        return self._result(self._client.resume_client(name))

    def forget_client(self, name: str) -> list[ComputeClient]:
        """Forget a registered client; see ``AsyncClient.forget_client``."""
        return self._result(self._client.forget_client(name))

    def stats(self) -> list[Minute]:
        """Fetch the statistics of the last hour; see ``AsyncClient.stats``."""
        return self._result(self._client.stats())

    def whoami(self) -> Identity:
        """Fetch the user that the server takes the caller for; see ``AsyncClient.whoami``."""
        return self._result(self._client.whoami())

    def users(self) -> list[User]:
        """Fetch the users of trusted issuers; see ``AsyncClient.users``."""
        return self._result(self._client.users())

    def health(self) -> Health:
        """Fetch the server's health; see ``AsyncClient.health``."""
        return self._result(self._client.health())

    @property
    def _client(self) -> AsyncClient:
        return self._background().client

    def _background(self) -> LoopThread[AsyncClient]:
        with self._lock:
            if self._running is None:
                self._running = LoopThread(self._make())
                self._at_exit = weakref.finalize(self, self._running.close)
            return self._running

    def _result(self, work: Coroutine[Any, Any, R]) -> R:
        return self._background().result(work)

    def _each(self, items: AsyncGenerator[R]) -> Iterator[R]:
        return self._background().each(items)

    def _forget(self) -> None:
        """Drop the thread and the connections in a forked process.

        The thread does not exist there, and the connections belong to the parent. They stay
        referenced and are never closed here: that would also end the parent's calls.
        """
        self._lock = threading.Lock()
        if self._running is not None:
            self._at_exit.detach()
            _abandoned.append(self._running)
            self._running = None


def _after_fork() -> None:
    for client in list(_clients):
        client._forget()


os.register_at_fork(after_in_child=_after_fork)
