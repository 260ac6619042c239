"""HTTP connections to one jo-client. Every failure is raised as a ``ClientError``.

Each client has two HTTP sessions, which are open as long as the server runs. Connections are pooled
by session, so a client that hangs can't use up the connections to another one. Users may read
output for as long as they like; their requests have a separate session, so that they can't use up
the connections that run jobs.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus

import aiohttp
import msgspec
from aiohttp import hdrs

from job_orchestrator.common.errors import GIVEN_BACK, describe_os_error
from job_orchestrator.common.logs.context import request_id
from job_orchestrator.common.protocol.headers import X_REQUEST_ID
from job_orchestrator.common.protocol.link import MAX_MESSAGE_BYTES
from job_orchestrator.common.protocol.multipart_writer import FormBody
from job_orchestrator.server.clients.base import EventsNotOffered, InventoryNotOffered
from job_orchestrator.server.clients.connector import Connector
from job_orchestrator.server.errors import (
    AccessRefused,
    AnswerLost,
    ClientBusy,
    ClientError,
    ClientFailed,
    ClientRefused,
    ClientTimeout,
    ClientUnreachable,
    PayloadGivenBack,
    PayloadLost,
    TokenRefused,
)
from job_orchestrator.server.model import ClientUrls

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 1.0
"""Time for the closing handshake of a WebSocket."""

MAX_CONNECTIONS = 64
"""Connections to one client for the server's own requests."""

MAX_READERS = 512
"""Connections to one client for users' reads; a client accepts 1000 from one address."""

_PROXY_FAILED = (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT)
_BUSY = (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.INSUFFICIENT_STORAGE)
_NOT_ADMITTED = (HTTPStatus.FORBIDDEN, HTTPStatus.MISDIRECTED_REQUEST)


_NO_LINK = (400, 403, 404, 405, 426, 501)
"""Statuses of older clients, and of proxies that do not pass WebSockets on."""


class LinkNotOffered(ClientError):
    """The client has no link (an older version), or a proxy before it does not pass it on."""


class _ErrorBody(msgspec.Struct):
    message: str
    code: str = ""


class ClientConnection:
    """Sends requests to one client. ``str`` of a connection is the client's name."""

    def __init__(self, urls: ClientUrls, connector: Connector) -> None:
        self._urls = urls
        self._own = connector.session(MAX_CONNECTIONS)
        self._readers = connector.session(MAX_READERS)

    def __str__(self) -> str:
        return self._urls.name

    async def close(self) -> None:
        """Close all connections."""
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
        """Send a request and yield an answer with status 200. Translates aiohttp's errors.

        ``silence_s`` is the longest time without a byte, ``for_reader`` selects the session for
        users' reads. Raises ``ClientError``.
        """
        sent = False
        if (known := request_id()) is not None:
            headers = {**(headers or {}), X_REQUEST_ID: known}
        try:
            async with asyncio.timeout(None) as stalled:
                now, data = asyncio.get_running_loop().time(), None
                if body is None:
                    # A head that trickles in byte by byte is never silent.
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
                        # Includes the wait until another reader's connection is free.
                        connect=ANSWER_TIMEOUT_S if for_reader else None,
                        sock_connect=CONNECT_TIMEOUT_S,
                        sock_read=silence_s,
                    ),
                    allow_redirects=False,
                ) as response:
                    stalled.reschedule(None)
                    sent = True
                    with _body_ends_with_connection(response):
                        await self._check(response, url)
                        yield response
        except aiohttp.ClientConnectorError as error:
            raise self._unreachable(error) from error
        except TimeoutError as error:
            raise self._timeout(sent, error) from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise AnswerLost(f"{self} broke the connection: {error}") from error

    async def open_link(self) -> aiohttp.ClientWebSocketResponse:
        """Open the WebSocket of the link. Raises ``LinkNotOffered``, ``ClientError``."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S + ANSWER_TIMEOUT_S):
                return await self._own.ws_connect(
                    self._urls.beside("link"),
                    max_msg_size=MAX_MESSAGE_BYTES,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
                )
        except aiohttp.WSServerHandshakeError as error:
            raise self._no_link(error) from error
        except aiohttp.ClientConnectorError as error:
            raise self._unreachable(error) from error
        except TimeoutError as error:
            raise self._timeout(sent=False, error=error) from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise AnswerLost(f"{self} broke the connection: {error}") from error

    def _no_link(self, error: aiohttp.WSServerHandshakeError) -> ClientError:
        message = f"{self} answered {error.status} to the request for a link: {error.message}"
        if error.status == HTTPStatus.UNAUTHORIZED:
            return self._token_refused()
        if error.status in _NO_LINK or error.status == HTTPStatus.OK:
            return LinkNotOffered(message)
        if error.status in _BUSY:
            return ClientBusy(message)
        if error.status == HTTPStatus.MISDIRECTED_REQUEST:
            # The answer has no body here.
            return AccessRefused(
                f"{self} does not answer to this host name: add it to ALLOWED_HOSTS of jo-client"
            )
        return AnswerLost(message) if error.status in _PROXY_FAILED else ClientFailed(message)

    def _token_refused(self) -> ClientError:
        why = "differs" if hdrs.AUTHORIZATION in self._own.headers else "is not set here"
        return TokenRefused(f"{self} refused the token: CLIENT_TOKEN {why}")

    def _unreachable(self, error: aiohttp.ClientConnectorError) -> ClientError:
        reason = describe_os_error(error.os_error)
        return ClientUnreachable(f"{self} can't be reached: {reason}")

    def _timeout(self, sent: bool, error: Exception) -> ClientError:
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return ClientUnreachable(f"{self} can't be reached: no connection in time")
        doing = "sending its answer" if sent else "reading or answering"
        return ClientTimeout(f"{self} stopped {doing}")

    async def _watched(self, body: FormBody, stalled: asyncio.Timeout) -> AsyncIterator[bytes]:
        """Yield the body and postpone the time-out at each block: a hung client doesn't read."""
        loop = asyncio.get_running_loop()
        async for block in body:
            stalled.reschedule(loop.time() + ANSWER_TIMEOUT_S)
            yield block

    async def _check(self, response: aiohttp.ClientResponse, url: str) -> None:
        if response.status == HTTPStatus.OK:
            return
        if url == self._urls.beside("events") and response.status in (404, 405):
            raise EventsNotOffered(f"{self} has no /events")
        if url == self._urls.beside("payloads") and response.status in (404, 405):
            raise InventoryNotOffered(f"{self} has no /payloads")
        if response.status == HTTPStatus.UNAUTHORIZED:
            raise self._token_refused()
        reason, code = await _reason(response)
        message = f"{self} answered {response.status}: {reason}"
        if code == GIVEN_BACK:
            raise PayloadGivenBack(message)
        if response.status == HTTPStatus.NOT_FOUND and response.method in ("GET", "POST"):
            raise PayloadLost(message) if url != self._urls.upload else ClientFailed(message)
        if response.status in _BUSY:
            raise ClientBusy(message)
        if response.status in _NOT_ADMITTED:
            raise AccessRefused(message)
        if response.status in _PROXY_FAILED:
            raise AnswerLost(message)
        if response.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE):
            raise ClientRefused(message, reason)
        raise ClientFailed(message)


@contextmanager
def _body_ends_with_connection(response: aiohttp.ClientResponse) -> Iterator[None]:
    """Make reading the body fail when its connection is closed.

    aiohttp does so, except when it closes the connection itself because the body turned into bytes
    that are not HTTP. It then also cancels its own time-out, and the reader would wait for ever.
    """
    connection, content = response.connection, response.content
    protocol = connection.protocol if connection is not None else None
    closed = protocol.closed if protocol is not None else None

    def fail_body(_: "asyncio.Future[None]") -> None:
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("the body broke off"))

    if closed is None:
        yield
        return
    closed.add_done_callback(fail_body)
    try:
        yield
    finally:
        closed.remove_done_callback(fail_body)


async def _reason(response: aiohttp.ClientResponse) -> tuple[str, str]:
    """Return reason and code of an error answer: those of our JSON, else the start of the text."""
    body = await response.content.read(4096)
    try:
        answer = msgspec.json.decode(body, type=_ErrorBody)
    except msgspec.MsgspecError:
        return body[:200].decode("utf-8", "replace").strip() or response.reason or "", ""
    return answer.message, answer.code
