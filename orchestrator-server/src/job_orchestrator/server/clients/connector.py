"""Connector to one client: the only place that depends on which side dials."""

from dataclasses import dataclass
from typing import Protocol

import aiohttp
from aiohttp import hdrs

from job_orchestrator.common.protocol.bearer import authorization_header
from job_orchestrator.server.clients.base import BLOCK_BYTES


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
        headers = {hdrs.AUTHORIZATION: authorization_header(self.token)} if self.token else None
        return aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(limit=max_connections),
            # Clients set no cookies; a real jar would search for them with every request.
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=BLOCK_BYTES,
            # Results are files: they are stored as they arrive, never decoded.
            auto_decompress=False,
        )
