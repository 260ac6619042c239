"""HTTP session with a jo-server: requests, their errors, and the schedule of retries."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

import aiohttp

from job_orchestrator.common import __version__
from job_orchestrator.common.errors import describe_os_error
from job_orchestrator.sdk.errors import (
    ApiError,
    ConnectionBroken,
    NotAJobServer,
    Refused,
    ServerUnavailable,
    ServerUnreachable,
    error_of,
)

R = TypeVar("R")

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
"""Default time-out of a read. Calls whose answer takes longer give their own."""

SUCCESS = (HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED, HTTPStatus.PARTIAL_CONTENT)
READ_BUFFER_BYTES = 1 << 20
MAX_JSON_BYTES = 64 << 20
MAX_ERROR_BYTES = 1 << 16

FIRST_RETRY_S = 0.1
MAX_RETRY_S = 5.0

Trouble = Callable[[ApiError, float], None]
"""Called with each failure that will be retried, and the seconds until the retry. An exception that
it raises ends the call."""


class Body(Protocol):
    """Body of a request, with its ``headers``. Each iteration yields the whole body again.

    ``failure`` is the error of the local side that ended the last iteration, if one did.
    """

    headers: dict[str, str]
    failure: Exception | None

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the blocks of the body."""


class Connection:
    """Pool of connections to the server at ``url``. ``answered``: the server has ever answered."""

    def __init__(
        self, url: str, token: str | None, patience_s: float, on_trouble: Trouble | None
    ) -> None:
        self.url = _checked_url(url)
        self.answered = False
        self._token = token
        self._patience_s = patience_s
        self._on_trouble = on_trouble
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close all connections. A later request opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int | float] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request, without retries, and yield its answer if it is a success.

        All errors of aiohttp are translated here. Raises ``ApiError``; its subclass
        ``ServerUnavailable`` where a retry may succeed.
        """
        sent: dict[str, str] = {**(headers or {}), **(body.headers if body else {})}
        try:
            async with asyncio.timeout(None) as stalled:
                async with self._open_session().request(
                    method,
                    f"{self.url}{path}",
                    params=params,
                    headers=sent,
                    data=None if body is None else _with_stall_timeout(body, stalled),
                    timeout=aiohttp.ClientTimeout(
                        total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=read_timeout_s
                    ),
                    allow_redirects=False,
                ) as response:
                    stalled.reschedule(None)
                    self.answered = True
                    if response.status not in SUCCESS:
                        content = await response.content.read(MAX_ERROR_BYTES)
                        raise error_of(self.url, response.status, response.headers, content)
                    yield response
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            if body is not None and body.failure is not None:
                raise body.failure from error
            raise self._translate(error) from error

    async def call(
        self,
        method: str,
        path: str,
        read: Callable[[aiohttp.ClientResponse], Awaitable[R]],
        *,
        params: Mapping[str, str | int | float] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> R:
        """Send an idempotent request and return what ``read`` makes of its answer.

        Retries the whole call, ``read`` included, while the server is unavailable.
        Raises ``ApiError``.
        """
        retries = self.retries()
        while True:
            try:
                async with self.open(
                    method,
                    path,
                    params=params,
                    headers=headers,
                    body=body,
                    read_timeout_s=read_timeout_s,
                ) as response:
                    return await read(response)
            except ServerUnavailable as error:
                await retries.wait_after(error)

    def retries(self) -> "RetrySchedule":
        """Return the schedule of the retries of one call."""
        return RetrySchedule(self._patience_s, self._on_trouble)

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            headers = {"User-Agent": f"job-orchestrator/{__version__}"}
            if self._token:
                headers["Authorization"] = f"Bearer {self._token}"
            self._session = aiohttp.ClientSession(
                headers=headers,
                read_bufsize=READ_BUFFER_BYTES,
                # Results are files: they are stored as they arrive.
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _translate(self, error: Exception) -> ApiError:
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return NotAJobServer(
                f"{self.url} can't be reached: {describe_os_error(error.os_error)}"
            )
        if isinstance(error, aiohttp.ClientConnectorError):
            reason = describe_os_error(error.os_error)
            return ServerUnreachable(f"{self.url} can't be reached: {reason}")
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return ServerUnreachable(
                f"{self.url} can't be reached: no connection within {CONNECT_TIMEOUT_S:g} s"
            )
        if isinstance(error, TimeoutError):
            return ConnectionBroken(f"{self.url} stopped answering")
        if isinstance(error, aiohttp.ClientResponseError):
            return NotAJobServer(
                f"{self.url} does not answer in valid HTTP: is it the URL of a jo-server?"
            )
        if isinstance(error, aiohttp.ClientPayloadError):
            return ConnectionBroken(
                f"{self.url} closed the connection during an answer; was it restarted?"
            )
        if isinstance(error, aiohttp.ServerDisconnectedError):
            return ConnectionBroken(
                f"{self.url} closed the connection without an answer; {self._likely_cause()}"
            )
        reason = describe_os_error(error) if isinstance(error, OSError) else str(error)
        return ConnectionBroken(f"{self.url} broke the connection: {reason}")

    def _likely_cause(self) -> str:
        """Return a question that names why a listening server may not answer."""
        if self.answered or not self.url.startswith("http:"):
            return "was it restarted?"
        return "was it restarted, or does it require https?"


class RetrySchedule:
    """Exponential back-off between the tries of one call, with a time limit.

    ``patience_s`` is how long after the first failure since the last success retries go on.
    """

    def __init__(self, patience_s: float, on_trouble: Trouble | None) -> None:
        self._patience_s = patience_s
        self._on_trouble = on_trouble
        self.reset()

    def reset(self) -> None:
        """Start over after a success."""
        self._deadline: float | None = None
        self._delay_s = FIRST_RETRY_S

    async def wait_after(self, error: ApiError) -> None:
        """Wait until the next try is due. Raises ``error`` if its time is beyond the limit."""
        now = asyncio.get_running_loop().time()
        if self._deadline is None:
            self._deadline = now + self._patience_s
        # Jitter of one half, so that many programs do not all retry at the same moment.
        delay_s = self._delay_s * random.uniform(0.5, 1)  # noqa: S311
        if isinstance(error, ServerUnavailable):
            delay_s = max(delay_s, error.retry_after_s or 0)
        if now + delay_s > self._deadline:
            raise error
        if self._on_trouble is not None:
            self._on_trouble(error, delay_s)
        self._delay_s = min(self._delay_s * 2, MAX_RETRY_S)
        await asyncio.sleep(delay_s)


async def read_all(response: aiohttp.ClientResponse) -> bytes:
    """Return the body of a JSON answer.

    Raises ``NotAJobServer`` if the answer is not JSON, or exceeds ``MAX_JSON_BYTES``.
    """
    if response.content_type != "application/json":
        url = response.url.origin()
        raise NotAJobServer(
            f"{url} answered with {response.content_type}: is this the URL of a jo-server?"
        )
    body = bytearray()
    async for block in response.content.iter_any():
        body += block
        if len(body) > MAX_JSON_BYTES:
            limit_mib = MAX_JSON_BYTES >> 20
            raise NotAJobServer(f"{response.url.origin()} sent more than {limit_mib} MiB of JSON")
    return bytes(body)


async def _with_stall_timeout(body: Body, stalled: asyncio.Timeout) -> AsyncIterator[bytes]:
    """Yield the blocks of ``body`` and push the time-out on at each: a server must keep reading."""
    loop = asyncio.get_running_loop()
    stalled.reschedule(loop.time() + READ_TIMEOUT_S)
    async for block in body:
        yield block
        stalled.reschedule(loop.time() + READ_TIMEOUT_S)
    # The body is sent: from now on the read time-out of the answer applies.
    stalled.reschedule(None)


def _checked_url(url: str) -> str:
    """Return ``url`` without a trailing slash. Raises ``Refused`` if it is not an HTTP URL."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment:
        raise Refused(
            f"The URL of the server is {url!r}; it must be a URL such as http://localhost:5000"
        )
    return url.rstrip("/")
