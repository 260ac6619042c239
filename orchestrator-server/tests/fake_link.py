"""Link of a fake client: carries out each request by the HTTP handlers of the same client.

So each answer that a test gives by HTTP is given over the link as well.
"""

import asyncio

import aiohttp
import msgspec
from aiohttp import web

from job_orchestrator.common.messages.payloads import InventoryEntry, LoadEvent, Payload
from job_orchestrator.common.protocol import link
from job_orchestrator.common.protocol.decoding import MalformedMessage, decode_payload
from job_orchestrator.server.clients.base import SmallInputs

REASONS = {
    400: link.Refusal.REFUSED,
    413: link.Refusal.REFUSED,
    503: link.Refusal.BUSY,
    507: link.Refusal.BUSY,
    404: link.Refusal.LOST,
}


class FakeLink:
    """One open link. ``received`` are the requests that arrived, in ``messages`` messages.

    ``now`` is the time of the client's clock in the hello; None: an older client sends none.
    """

    def __init__(self, request: web.Request, now: float | None = None) -> None:
        self.received: list[link.Request] = []
        self.messages = 0
        self._now = now
        self._request = request
        self._socket = web.WebSocketResponse()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    async def serve(self, load: LoadEvent) -> web.StreamResponse:
        """Exchange the hellos and answer requests until the link ends."""
        await self._socket.prepare(self._request)
        link.decode_server_hello(await self._socket.receive_bytes())
        await self.send(link.ClientHello(link.PROTOCOL, "", load, self._now))
        authorization = self._request.headers.get("Authorization", "")
        async with aiohttp.ClientSession(
            self._request.url.origin(), headers={"Authorization": authorization}
        ) as http:
            async for message in self._socket:
                self.messages += 1
                for item in link.decode_requests(message.data):
                    self.received.append(item)
                    task = asyncio.create_task(self._carry_out(http, item))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
            self._closed.set_result(self._socket.close_code)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        return self._socket

    async def send(self, *items: link.Item | link.ClientHello) -> None:
        """Send items as one message."""
        await self.send_raw(link.join_items([link.encode_item(item) for item in items]))

    async def send_raw(self, message: bytes) -> None:
        """Send any bytes as a message."""
        await self._socket.send_bytes(message)

    async def close(self) -> None:
        """Close the link."""
        await self._socket.close()

    async def closed(self) -> int | None:
        """Wait for the end of the link, and return the code with which the server closed it."""
        return await asyncio.wait_for(asyncio.shield(self._closed), 60)

    def abort(self) -> None:
        """Break the connection."""
        if self._request.transport is not None:
            self._request.transport.abort()

    async def _carry_out(self, http: aiohttp.ClientSession, item: link.Request) -> None:
        method, path, headers, data = _request_of(item)
        try:
            async with http.request(method, path, headers=headers, data=data) as response:
                body = await response.read()
        except aiohttp.ClientError:
            self.abort()
            return
        if response.status != 200:
            reason = REASONS.get(response.status, link.Refusal.FAILED)
            await self.send(link.Refused(item.number, reason, body.decode()))
            return
        try:
            await self.send(_answer(item, body))
        except (MalformedMessage, msgspec.MsgspecError):
            await self.send_raw(body)


def _request_of(item: link.Request) -> tuple[str, str, dict[str, str], bytes | None]:
    match item:
        case link.Assign():
            form = SmallInputs(item.files, item.fields).form()
            return "POST", "/submit", {**form.headers, "Idempotency-Key": item.key}, form.content
        case link.Kill():
            return "POST", f"/kill/{item.id}", {}, None
        case link.KillKey():
            return "POST", "/kill", {"Idempotency-Key": item.key}, None
        case link.Recall():
            return "POST", "/recall", {"Idempotency-Key": item.key}, None
        case link.Acknowledge():
            return "DELETE", f"/retrieve?ids={','.join(map(str, item.ids))}", {}, None
        case link.ListPayloads():
            return "GET", "/payloads", {}, None


def _answer(item: link.Request, body: bytes) -> link.Answer:
    match item:
        case link.Recall():
            return link.Recalled(item.number, msgspec.json.decode(body, type=bool))
        case link.Acknowledge():
            return link.Acknowledged(item.number)
        case link.ListPayloads():
            entries = msgspec.json.decode(body, type=list[InventoryEntry])
            return link.Inventory(item.number, entries, last=True)
    payload: Payload = decode_payload(body)
    return link.PayloadState(
        item.number, payload.id, payload.status, payload.exit_code, payload.message or ""
    )
