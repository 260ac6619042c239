"""The one HTTP session with a jo-server: errors as domain errors, and patience with it."""

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
SILENCE_S = 60.0
"""Nothing is heard from a working server for so long only where more was agreed on."""

READ_BUFFER_BYTES = 1 << 20
MAX_JSON_BYTES = 64 << 20
MAX_ERROR_BYTES = 1 << 16

FIRST_PAUSE_S = 0.1
MAX_PAUSE_S = 5.0

Trouble = Callable[[ApiError, float], None]
"""Told of each failure that is to be tried again, and in how many seconds. What it raises ends
the call instead."""


class Body(Protocol):
    """What a request carries. ``headers`` go with it; iterated anew, it is the same again."""

    headers: dict[str, str]
    failure: Exception | None

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield blocks."""


class Connection:
    """Requests to the server at ``url``, pooled."""

    def __init__(
        self, url: str, token: str | None, patience_s: float, on_trouble: Trouble | None
    ) -> None:
        self.url = _checked(url)
        self.answered = False
        self._token = token
        self._patience_s = patience_s
        self._on_trouble = on_trouble
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """End all connections. Another request opens new ones."""
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
        silence_s: float = SILENCE_S,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request and yield a good answer; the only place that knows aiohttp's errors.

        Raises ``ApiError``, ``ServerUnavailable`` among it for what may work later.
        """
        sent: dict[str, str] = {**(headers or {}), **(body.headers if body else {})}
        try:
            async with asyncio.timeout(None) as stalled:
                async with self._open_session().request(
                    method,
                    f"{self.url}{path}",
                    params=params,
                    headers=sent,
                    data=None if body is None else _watched(body, stalled),
                    timeout=aiohttp.ClientTimeout(
                        total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=silence_s
                    ),
                    allow_redirects=False,
                ) as response:
                    stalled.reschedule(None)
                    self.answered = True
                    if response.status not in (HTTPStatus.OK, HTTPStatus.CREATED, 206):
                        said = await response.content.read(MAX_ERROR_BYTES)
                        raise error_of(self.url, response.status, response.headers, said)
                    yield response
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            if body is not None and body.failure is not None:
                raise body.failure from error
            raise self._translated(error) from error

    async def call(
        self,
        method: str,
        path: str,
        read: Callable[[aiohttp.ClientResponse], Awaitable[R]],
        *,
        params: Mapping[str, str | int | float] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        silence_s: float = SILENCE_S,
    ) -> R:
        """Send a request that may be repeated, until ``read`` has read its answer to the end."""
        patience = self.patience()
        while True:
            try:
                async with self.open(
                    method, path, params=params, headers=headers, body=body, silence_s=silence_s
                ) as response:
                    return await read(response)
            except ServerUnavailable as error:
                await patience.pause(error)

    def patience(self) -> "Patience":
        """What decides how often one call is tried again."""
        return Patience(self._patience_s, self._on_trouble)

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            headers = {"User-Agent": f"job-orchestrator/{__version__}"}
            if self._token:
                headers["Authorization"] = f"Bearer {self._token}"
            self._session = aiohttp.ClientSession(
                headers=headers,
                read_bufsize=READ_BUFFER_BYTES,
                # Results are files: they are kept as they come.
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _translated(self, error: Exception) -> ApiError:
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return NotAJobServer(
                f"{self.url} can't be reached: {describe_os_error(error.os_error)}"
            )
        if isinstance(error, aiohttp.ClientConnectorError):
            reason = describe_os_error(error.os_error)
            return ServerUnreachable(f"{self.url} can't be reached: {reason}")
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return ServerUnreachable(f"{self.url} can't be reached: no connection in time")
        if isinstance(error, TimeoutError):
            return ConnectionBroken(f"{self.url} stopped answering")
        if isinstance(error, aiohttp.ClientResponseError):
            return NotAJobServer(
                f"{self.url} speaks no HTTP that can be understood: is it the URL of a jo-server?"
            )
        if isinstance(error, aiohttp.ClientPayloadError):
            return ConnectionBroken(f"{self.url} broke off its answer; was it restarted?")
        if isinstance(error, aiohttp.ServerDisconnectedError):
            return ConnectionBroken(f"{self.url} gave no answer; {self._perhaps()}")
        reason = describe_os_error(error) if isinstance(error, OSError) else str(error)
        return ConnectionBroken(f"{self.url} broke the connection: {reason}")

    def _perhaps(self) -> str:
        """Why something that listens may give no answer."""
        if self.answered or not self.url.startswith("http:"):
            return "was it restarted?"
        return "was it restarted, or does it want https?"


class Patience:
    """Pauses between tries, longer each time, for ``seconds`` since the last success."""

    def __init__(self, seconds: float, on_trouble: Trouble | None) -> None:
        self._seconds = seconds
        self._on_trouble = on_trouble
        self.renew()

    def renew(self) -> None:
        """Something worked: begin anew."""
        self._until: float | None = None
        self._pause_s = FIRST_PAUSE_S

    async def pause(self, error: ApiError) -> None:
        """Wait before the next try; raise ``error`` if there should be none."""
        now = asyncio.get_running_loop().time()
        if self._until is None:
            self._until = now + self._seconds
        # Half of it by chance, so that many programs don't come back at the same moment.
        pause_s = self._pause_s * random.uniform(0.5, 1)  # noqa: S311
        if isinstance(error, ServerUnavailable):
            pause_s = max(pause_s, error.retry_after_s or 0)
        if now + pause_s > self._until:
            raise error
        if self._on_trouble is not None:
            self._on_trouble(error, pause_s)
        self._pause_s = min(self._pause_s * 2, MAX_PAUSE_S)
        await asyncio.sleep(pause_s)


async def read_all(response: aiohttp.ClientResponse) -> bytes:
    """The whole of a JSON answer. Raises ``NotAJobServer`` for one that is none, or too long."""
    if response.content_type != "application/json":
        url = response.url.origin()
        raise NotAJobServer(
            f"{url} answered with {response.content_type}: is this the URL of a jo-server?"
        )
    body = bytearray()
    async for block in response.content.iter_any():
        body += block
        if len(body) > MAX_JSON_BYTES:
            raise NotAJobServer(f"{response.url.origin()} answered with too much")
    return bytes(body)


async def _watched(body: Body, stalled: asyncio.Timeout) -> AsyncIterator[bytes]:
    """The body; the time-out is moved on at each block: a server that reads nothing is hung."""
    loop = asyncio.get_running_loop()
    stalled.reschedule(loop.time() + SILENCE_S)
    async for block in body:
        yield block
        stalled.reschedule(loop.time() + SILENCE_S)
    # From here on, the silence of the answer counts.
    stalled.reschedule(None)


def _checked(url: str) -> str:
    """``url`` without a slash at its end. Raises ``Refused``."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment:
        raise Refused(
            f"The URL of the server is {url!r}; it must be one such as http://localhost:5000"
        )
    return url.rstrip("/")
