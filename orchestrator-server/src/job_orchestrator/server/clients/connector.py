"""Connectors to one client: the only place that depends on which side dials."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import aiohttp
from aiohttp import ClientRequest, ClientTimeout, hdrs
from aiohttp.client_proto import ResponseHandler
from aiohttp.tracing import Trace

from job_orchestrator.common.protocol.bearer import authorization_header
from job_orchestrator.common.web.tunnel.multiplexer import Multiplexer
from job_orchestrator.server.clients.base import BLOCK_BYTES

RETURN_S = 3.0
"""Time for which requests wait for a client that has lost its tunnel: most come back within it."""


class Connector(Protocol):
    """Opens HTTP sessions to one client. The link is a WebSocket of such a session."""

    def session(self, max_connections: int) -> aiohttp.ClientSession:
        """Create a session with at most so many connections. The caller closes it."""


@dataclass(frozen=True)
class TcpConnector:
    """Connects to the host and port of a client's URLs, with the token of clients."""

    token: str | None

    def session(self, max_connections: int) -> aiohttp.ClientSession:
        """See ``Connector.session``."""
        return _session(aiohttp.TCPConnector(limit=max_connections), self.token)


class TunnelConnector:
    """Opens streams of the tunnel that the client has dialed.

    No token is needed: the client trusts the server that it has dialed. ``clock`` returns monotonic
    seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.tunnel: Multiplexer | None = None
        self._clock = clock
        self._opened = asyncio.Event()
        self._lost_at = float("-inf")

    @property
    def is_connected(self) -> bool:
        """True while the tunnel is open."""
        return self.tunnel is not None and self.tunnel.is_open

    def on_open(self, tunnel: Multiplexer) -> None:
        """Use a tunnel from now on."""
        self.tunnel = tunnel
        self._opened.set()

    def on_end(self, tunnel: Multiplexer) -> None:
        """Stop using a tunnel that has ended, if there is no newer one."""
        if self.tunnel is tunnel:
            self.tunnel = None
            self._opened.clear()
            self._lost_at = self._clock()

    def session(self, max_connections: int) -> aiohttp.ClientSession:
        """See ``Connector.session``."""
        return _session(_Streams(self, max_connections), None)

    async def sleep(self, delay_s: float) -> None:
        """Sleep, but not longer than until a tunnel is opened."""
        opened = self._opened
        if self.is_connected:
            await asyncio.sleep(delay_s)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await opened.wait()

    async def open_stream(self, protocol: asyncio.BaseProtocol) -> None:
        """Open a stream; wait for a client that has just lost its tunnel, and dials again.

        Raises ``ConnectionError``.
        """
        if not self.is_connected:
            await self.sleep(self._lost_at + RETURN_S - self._clock())
        if self.tunnel is None:
            raise ConnectionRefusedError("it is not connected to this server")
        self.tunnel.open(protocol)


class _Streams(aiohttp.BaseConnector):
    """Connections of an HTTP session that are streams of the present tunnel."""

    def __init__(self, connector: TunnelConnector, limit: int) -> None:
        super().__init__(limit=limit)
        self._connector = connector

    async def _create_connection(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109 (the interface of aiohttp)
    ) -> ResponseHandler:
        """Open a stream, as the connectors of aiohttp open a socket."""
        protocol: ResponseHandler = self._factory()
        try:
            await self._connector.open_stream(protocol)
        except ConnectionError as error:
            # Without an error number, the text of the error is the reason.
            raise aiohttp.ClientConnectorError(req.connection_key, OSError(str(error))) from error
        return protocol


def _session(connector: aiohttp.BaseConnector, token: str | None) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        headers={hdrs.AUTHORIZATION: authorization_header(token)} if token else None,
        connector=connector,
        # Clients set no cookies; a real jar would search for them with every request.
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=BLOCK_BYTES,
        # Results are files: they are stored as they arrive, never decoded.
        auto_decompress=False,
    )
