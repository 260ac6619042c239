"""The connections to one jo-client. Every failure is one of the ``ClientError`` kinds.

Two HTTP sessions a client, for the life of the process: connections are pooled, and a client that
hangs can't use up the connections to another one. What users read for as long as they like has a
session of its own: it can't use up the connections by which jobs are run.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus

import aiohttp
import msgspec
from aiohttp import hdrs

from job_orchestrator.common.errors import describe_os_error
from job_orchestrator.common.logs.context import request_id
from job_orchestrator.common.protocol.bearer import authorization_header
from job_orchestrator.common.protocol.headers import X_REQUEST_ID
from job_orchestrator.common.protocol.multipart_writer import FormBody
from job_orchestrator.server.errors import (
    AnswerLost,
    ClientBusy,
    ClientError,
    ClientFailed,
    ClientRefused,
    ClientTimeout,
    ClientUnreachable,
    PayloadLost,
    TokenRefused,
)
from job_orchestrator.server.model import ClientUrls

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0

MAX_CONNECTIONS = 64
"""Of the server's own calls, to one client."""

MAX_READERS = 512
"""Connections through which users read from one client; it takes 1000 from one address."""

BLOCK_BYTES = 1 << 20

_PROXY_FAILED = (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT)
_BUSY = (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.INSUFFICIENT_STORAGE)


class _ErrorBody(msgspec.Struct):
    message: str


class EventsNotOffered(ClientError):
    """The client is of a kind that has no event stream: it must be polled."""


class ClientConnection:
    """Makes the requests to one client. ``str`` of it names the client in logs and messages."""

    def __init__(self, urls: ClientUrls, token: str | None) -> None:
        self._urls = urls
        self._token = token
        self._own = _session(token, MAX_CONNECTIONS)
        self._readers = _session(token, MAX_READERS)

    def __str__(self) -> str:
        return self._urls.upload

    async def close(self) -> None:
        """End all connections."""
        await self._own.close()
        await self._readers.close()

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str] | None = None,
        body: FormBody | None = None,
        silence_s: float = ANSWER_TIMEOUT_S,
        for_reader: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and yield a good answer; the only place that knows aiohttp's errors."""
        sent = False
        if (known := request_id()) is not None:
            headers = {**(headers or {}), X_REQUEST_ID: known}
        try:
            async with asyncio.timeout(None) as stalled:
                now, data = asyncio.get_running_loop().time(), None
                if body is None:
                    # A head that comes byte by byte is never silent.
                    stalled.reschedule(now + silence_s + 2 * ANSWER_TIMEOUT_S)
                else:
                    data = body.content or self._watched(body, stalled)
                    stalled.reschedule(now + ANSWER_TIMEOUT_S)
                session = self._readers if for_reader else self._own
                async with session.request(
                    method,
                    url,
                    headers=headers,
                    data=data,
                    timeout=aiohttp.ClientTimeout(
                        total=None,
                        # Beside the connection itself, a wait until another reader has ended.
                        connect=ANSWER_TIMEOUT_S if for_reader else None,
                        sock_connect=CONNECT_TIMEOUT_S,
                        sock_read=silence_s,
                    ),
                    allow_redirects=False,
                ) as response:
                    stalled.reschedule(None)
                    sent = True
                    with _told_of_the_end(response):
                        await self._check(response, url)
                        yield response
        except aiohttp.ClientConnectorError as error:
            reason = describe_os_error(error.os_error)
            raise ClientUnreachable(f"{self} can't be reached: {reason}") from error
        except TimeoutError as error:
            raise self._timeout(sent, error) from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise AnswerLost(f"{self} broke the connection: {error}") from error

    def _timeout(self, sent: bool, error: Exception) -> ClientError:
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return ClientUnreachable(f"{self} can't be reached: no connection in time")
        doing = "sending its answer" if sent else "reading or answering"
        return ClientTimeout(f"{self} stopped {doing}")

    async def _watched(self, body: FormBody, stalled: asyncio.Timeout) -> AsyncIterator[bytes]:
        """The body, the time-out moved on at each block: a client that doesn't read is hung."""
        loop = asyncio.get_running_loop()
        async for block in body:
            stalled.reschedule(loop.time() + ANSWER_TIMEOUT_S)
            yield block

    async def _check(self, response: aiohttp.ClientResponse, url: str) -> None:
        if response.status == HTTPStatus.OK:
            return
        if url == self._urls.events and response.status in (404, 405):
            raise EventsNotOffered(f"{self} has no /events")
        if response.status == HTTPStatus.UNAUTHORIZED:
            why = "differs" if self._token else "is not set here"
            raise TokenRefused(f"{self} refused the token: CLIENT_TOKEN {why}")
        reason = await _reason(response)
        said = f"{self} answered {response.status}: {reason}"
        if response.status == HTTPStatus.NOT_FOUND and response.method in ("GET", "POST"):
            raise PayloadLost(said) if url != self._urls.upload else ClientFailed(said)
        if response.status in _BUSY:
            raise ClientBusy(said)
        if response.status in _PROXY_FAILED:
            raise AnswerLost(said)
        if response.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE):
            raise ClientRefused(said)
        raise ClientFailed(said)


def _session(token: str | None, max_connections: int) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        headers={hdrs.AUTHORIZATION: authorization_header(token)} if token else None,
        connector=aiohttp.TCPConnector(limit=max_connections),
        # Clients set no cookies; looking for some takes its time with every request.
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=BLOCK_BYTES,
        # Results are files: they are stored as they come, never decoded on the way.
        auto_decompress=False,
    )


@contextmanager
def _told_of_the_end(response: aiohttp.ClientResponse) -> Iterator[None]:
    """Let whoever reads the body be told when its connection is closed.

    aiohttp tells, but not when it closed the connection itself because the body turned into what is
    no HTTP: then it also gives up its own time-out, and the reader waits for ever.
    """
    connection, content = response.connection, response.content
    protocol = connection.protocol if connection is not None else None
    closed = protocol.closed if protocol is not None else None

    def tell(_: "asyncio.Future[None]") -> None:
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("the body broke off"))

    if closed is None:
        yield
        return
    closed.add_done_callback(tell)
    try:
        yield
    finally:
        closed.remove_done_callback(tell)


async def _reason(response: aiohttp.ClientResponse) -> str:
    """What an error says: the message of our JSON, else the beginning of the text."""
    body = await response.content.read(4096)
    try:
        return msgspec.json.decode(body, type=_ErrorBody).message
    except msgspec.MsgspecError:
        return body[:200].decode("utf-8", "replace").strip() or response.reason or ""
