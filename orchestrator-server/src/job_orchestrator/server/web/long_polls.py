"""Requests that wait for the end of a job (``?wait=``), answered together.

Portals let many requests wait for one job. When the job ends, the answer is prepared once and
written to all connections, and only then do the handlers of the requests continue: what aiohttp
does for a request takes ten times as long as the write, and would delay the answers of the others.
A request that asks for more than the whole result is answered by its handler.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http import SERVER_SOFTWARE

from job_orchestrator.common.errors import DomainError
from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.model import Job

WaitForEnd = Callable[[int, float], Awaitable[Job]]
Answer = Callable[[web.Request, Job], Awaitable[web.StreamResponse]]

_SPECIAL = (
    hdrs.RANGE,
    hdrs.IF_RANGE,
    hdrs.IF_MATCH,
    hdrs.IF_NONE_MATCH,
    hdrs.IF_MODIFIED_SINCE,
    hdrs.IF_UNMODIFIED_SINCE,
)
"""Headers of a request whose answer depends on them."""


class SentResponse(web.StreamResponse):
    """Response that was written to the connection already, with a body of ``size`` bytes."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    @property
    def prepared(self) -> bool:
        """True: the response has begun."""
        return True

    @property
    def keep_alive(self) -> bool:
        """True: only such requests are answered together."""
        return True

    @property
    def body_length(self) -> int:
        """Size of the body in bytes, for the access log."""
        return self._size

    async def prepare(self, request: web.BaseRequest) -> None:
        """Do nothing."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing."""


@dataclass(eq=False)
class _Poll:
    """A request that waits, and its own headers of the answer.

    ``own_headers`` is None if the request must be answered by its handler.
    """

    request: web.Request
    own_headers: bytes | None
    answered: asyncio.Future[SentResponse | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def continue_with(self, response: SentResponse | None) -> None:
        """Let the handler continue."""
        if not self.answered.done():
            self.answered.set_result(response)

    def fail(self, error: Exception) -> None:
        """Let the handler raise ``error``."""
        if not self.answered.done():
            self.answered.set_exception(error)


@dataclass(eq=False)
class _Group:
    """The requests that wait for one job, and the task that answers them."""

    polls: dict[_Poll, None] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None


class LongPolls:
    """Registry of the waiting requests. ``answer`` makes the response with the results of a job."""

    def __init__(self, wait_for_end: WaitForEnd, answer: Answer) -> None:
        self._wait_for_end = wait_for_end
        self._answer = answer
        self._groups: dict[int, _Group] = {}

    def waiting(self, job_id: int) -> int:
        """Return the number of requests that wait for a job."""
        group = self._groups.get(job_id)
        return len(group.polls) if group is not None else 0

    async def wait(
        self, request: web.Request, job_id: int, timeout_s: float
    ) -> SentResponse | None:
        """Wait for the end of a job.

        Returns the response if it was sent. None: the job has ended, ``timeout_s`` is over or the
        server stops, and the handler must answer. Raises ``JobNotFound``.
        """
        poll = _Poll(request, await _own_headers(request))
        group = self._groups.get(job_id)
        if group is None:
            group = self._groups[job_id] = _Group()
            group.task = asyncio.create_task(self._serve(job_id, group), name=f"polls {job_id}")
        group.polls[poll] = None
        expiry = asyncio.get_running_loop().call_later(timeout_s, poll.continue_with, None)
        try:
            return await poll.answered
        finally:
            expiry.cancel()
            del group.polls[poll]
            if not group.polls and group.task is not None:
                group.task.cancel()
                self._forget(job_id, group)

    async def _serve(self, job_id: int, group: _Group) -> None:
        """Answer the requests of a group when the job has ended; the last of them cancels this."""
        try:
            job = await self._wait_for_end(job_id, math.inf)
            prepared = await self._prepare(job, group)
        except Exception as error:
            self._forget(job_id, group)
            for poll in group.polls:
                poll.fail(error)
            return
        # From here on nothing is awaited, so that no request can join or leave the group.
        self._forget(job_id, group)
        for poll in group.polls:
            poll.continue_with(prepared.write_to(poll) if prepared is not None else None)

    async def _prepare(self, job: Job, group: _Group) -> "_Prepared | None":
        """Prepare the answer for all plain requests; None if there is nothing to send to them."""
        plain = next((poll for poll in group.polls if poll.own_headers is not None), None)
        if plain is None or job.status is not JobStatus.COMPLETED:
            return None
        try:
            response = await self._answer(plain.request, job)
        except DomainError:  # each handler meets it again, and reports it
            return None
        if not isinstance(response, web.Response) or not isinstance(response.body, bytes):
            return None
        return _Prepared(response, response.body)

    def _forget(self, job_id: int, group: _Group) -> None:
        if self._groups.get(job_id) is group:
            del self._groups[job_id]


class _Prepared:
    """A response, ready to be written to many connections."""

    def __init__(self, response: web.Response, body: bytes) -> None:
        headers = response.headers.copy()
        headers[hdrs.CONTENT_LENGTH] = str(len(body))
        headers[hdrs.DATE] = formatdate(usegmt=True)
        headers[hdrs.SERVER] = SERVER_SOFTWARE
        self._head = f"HTTP/1.1 {response.status} {response.reason}\r\n".encode() + _lines(headers)
        self._body = body

    def write_to(self, poll: _Poll) -> SentResponse | None:
        """Answer a plain request that still waits; None if its handler must answer."""
        transport = poll.request.transport
        if poll.own_headers is None or poll.answered.done() or transport is None:
            return None
        transport.write(b"".join((self._head, poll.own_headers, b"\r\n", self._body)))
        return SentResponse(len(self._body))


async def _own_headers(request: web.Request) -> bytes | None:
    """Return the headers that only the answer to this request has, such as its id.

    Returns None unless the answer is the whole result over a connection that stays open.
    """
    if request.version != HttpVersion11 or not request.keep_alive:
        return None
    if any(name in request.headers for name in _SPECIAL):
        return None
    blank = web.StreamResponse()
    await request.app.on_response_prepare.send(request, blank)
    return None if blank.keep_alive is False else _lines(blank.headers)


def _lines(headers: Mapping[str, str]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()


LONG_POLLS = web.AppKey("long_polls", LongPolls)
