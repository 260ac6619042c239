"""A proxy of a client that breaks the link at a message, or repeats and reorders messages."""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from job_orchestrator.common.web.link_socket import WebSocket

HELLOS = 1
"""Messages at the beginning of each direction that are neither repeated nor reordered."""

_NOT_FORWARDED = {"Host", "Transfer-Encoding", "Content-Length", "Connection"}


@dataclass
class MessageFaults:
    """Faults that are applied to the messages of one direction.

    ``cut_at`` breaks the link, once, at the message of this number, which arrives only if
    ``delivered``. ``repeated`` sends each message twice, and at the beginning of a connection those
    of the one before, in another order.
    """

    cut_at: int | None = None
    delivered: bool = False
    repeated: bool = False
    count: int = 0
    earlier: list[bytes] = field(default_factory=list)


class LinkProxy:
    """Proxy of one client. HTTP requests pass as they are, but with ``host`` if it is not empty."""

    def __init__(self, target: str) -> None:
        self.requests, self.responses = MessageFaults(), MessageFaults()
        self.links = 0
        self.url = ""
        self.host = ""
        self._target = target
        self._server: TestServer | None = None
        self._http: aiohttp.ClientSession | None = None

    async def open(self) -> "LinkProxy":
        """Listen on a free port."""
        app = web.Application(client_max_size=1 << 30)
        app.router.add_get("/link", self._link)
        app.router.add_route("*", "/{path:.*}", self._forward)
        self._http = aiohttp.ClientSession(
            auto_decompress=False,
            connector=aiohttp.TCPConnector(force_close=True, limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        self._server = TestServer(app)
        await self._server.start_server()
        self.url = str(self._server.make_url("")).rstrip("/")
        return self

    async def close(self) -> None:
        """Break all connections."""
        assert self._server is not None
        assert self._http is not None
        await self._http.close()
        await self._server.close()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        assert self._http is not None
        headers = {k: v for k, v in request.headers.items() if k not in _NOT_FORWARDED}
        headers |= self._host_header()
        url = f"{self._target}{request.path_qs}"
        body = await request.read()
        try:
            async with self._http.request(
                request.method, url, headers=headers, data=body or None
            ) as answer:
                response = web.StreamResponse(status=answer.status)
                response.headers.update(
                    {k: v for k, v in answer.headers.items() if k not in _NOT_FORWARDED}
                )
                await response.prepare(request)
                async for block in answer.content.iter_any():
                    await response.write(block)
                return response
        except aiohttp.ClientError:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=502)

    def _host_header(self) -> dict[str, str]:
        return {"Host": self.host} if self.host else {}

    async def _link(self, request: web.Request) -> web.StreamResponse:
        assert self._http is not None
        self.links += 1
        try:
            above = await self._http.ws_connect(
                f"{self._target}/link", max_msg_size=0, headers=self._host_header()
            )
        except aiohttp.WSServerHandshakeError as error:
            return web.Response(status=error.status)
        except aiohttp.ClientError:
            return web.Response(status=502)
        below = web.WebSocketResponse(max_msg_size=0)
        await below.prepare(request)

        def cut() -> None:
            for transport in (request.transport, above.get_extra_info("socket")):
                if isinstance(transport, asyncio.Transport):
                    transport.abort()

        pumps = [
            asyncio.ensure_future(_pump(below, above, self.requests, cut)),
            asyncio.ensure_future(_pump(above, below, self.responses, cut)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        await above.close()
        with suppress(ConnectionError, aiohttp.ClientError):
            await below.close()
        return below


async def _pump(
    source: WebSocket,
    target: WebSocket,
    faults: MessageFaults,
    cut: Callable[[], None],
) -> None:
    number = 0
    sent: list[bytes] = []
    with suppress(ConnectionError, aiohttp.ClientError):
        while (message := await source.receive()).type is aiohttp.WSMsgType.BINARY:
            number += 1
            faults.count += 1
            if faults.count == faults.cut_at:
                if faults.delivered:
                    await target.send_bytes(message.data)
                cut()
                return
            await target.send_bytes(message.data)
            if faults.repeated and number == HELLOS:
                random.shuffle(faults.earlier)
                for earlier in faults.earlier:
                    await target.send_bytes(earlier)
                faults.earlier = sent
            elif faults.repeated:
                sent.append(message.data)
                await target.send_bytes(message.data)
