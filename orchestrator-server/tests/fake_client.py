"""A jo-client that does as a test tells it, misbehaviour included. Real HTTP, no processes."""

import asyncio
import io
import zipfile
from collections import Counter
from collections.abc import Awaitable, Callable

import aiohttp
import msgspec
from aiohttp import web

from job_orchestrator.common.messages import ErrorPayload, LoadEvent, Payload, PayloadEvent
from job_orchestrator.common.protocol.sse import encode_event
from job_orchestrator.common.status import PayloadStatus

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def zip_of(**files: str) -> bytes:
    """A ZIP file."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return body.getvalue()


class FakeClient:
    """Keeps payloads; a test moves them on with ``report``.

    ``instead`` maps "submit", "retrieve", "partial", "kill", "kill_key" or "events" to another
    answer.
    """

    def __init__(self) -> None:
        self.payloads: dict[int, Payload] = {}
        self.keys: dict[int, str] = {}
        self.names: dict[int, set[str]] = {}
        self.results: dict[int, bytes] = {}
        self.discarded: set[int] = set()
        self.killed_keys: list[str] = []
        self.requests: Counter[str] = Counter()
        self.instead: dict[str, Answer] = {}
        self.submitted: asyncio.Queue[int] = asyncio.Queue()
        self.connected = asyncio.Event()
        self.slots = 4
        self.draining = False
        self.token = ""
        self._streams: set[asyncio.Queue[bytes]] = set()
        self._next_id = 1

    def app(self) -> web.Application:
        """The application to serve."""
        app = web.Application()
        app.router.add_post("/submit", self._or_instead("submit", self._submit))
        app.router.add_get("/retrieve/{id}", self._or_instead("retrieve", self._retrieve))
        app.router.add_get("/retrieve_partial/{id}", self._or_instead("partial", self._partial))
        app.router.add_delete("/retrieve", self._or_instead("discard", self._discard))
        app.router.add_post("/kill/{id}", self._or_instead("kill", self._kill))
        app.router.add_post("/kill", self._or_instead("kill_key", self._kill_key))
        app.router.add_get("/logs/{id}", self._or_instead("logs", answering(404)))
        app.router.add_get("/events", self._or_instead("events", self._events))
        app.on_shutdown.append(self._end_streams)
        return app

    def report(
        self,
        payload_id: int,
        status: PayloadStatus,
        *,
        exit_code: int | None = None,
        message: str = "",
        push: bool = True,
    ) -> None:
        """Move a payload on, and push that."""
        self.payloads[payload_id] = msgspec.structs.replace(
            self.payloads[payload_id], status=status, exit_code=exit_code, message=message
        )
        if push:
            event = PayloadEvent(payload_id, status, exit_code, message)
            self._push(encode_event("payload", msgspec.json.encode(event)))

    def complete(self, payload_id: int, **files: str) -> None:
        """End a payload well, with results."""
        self.results[payload_id] = zip_of(**(files or {"out": "x"}))
        self.report(payload_id, PayloadStatus.COMPLETED, exit_code=0)

    def drain(self) -> None:
        """Tell that no new payloads are taken."""
        self.draining = True
        self._push(self._load())

    def lose(self, payload_id: int) -> None:
        """Forget a payload, and push that."""
        del self.payloads[payload_id], self.keys[payload_id]
        event = PayloadEvent(payload_id, PayloadStatus.CLEANED)
        self._push(encode_event("payload", msgspec.json.encode(event)))

    async def next_payload(self) -> int:
        """The next payload that is submitted."""
        async with asyncio.timeout(20):
            return await self.submitted.get()

    def hold_submits(self) -> asyncio.Event:
        """Take no payload in before the event is set."""
        gate = asyncio.Event()

        async def wait(request: web.Request) -> web.StreamResponse:
            await gate.wait()
            return await self._submit(request)

        self.instead["submit"] = wait
        return gate

    def _load(self) -> bytes:
        load = LoadEvent(1.0, 1.0, self.slots, running=0, waiting=0, draining=self.draining)
        return encode_event("load", msgspec.json.encode(load))

    def go_away(self) -> None:
        """Break the event stream, and every new one, until ``come_back``."""
        self.instead["events"] = hang_up
        self._push(b"")

    def come_back(self) -> None:
        """Take event streams again."""
        del self.instead["events"]

    def _push(self, event: bytes) -> None:
        for stream in self._streams:
            stream.put_nowait(event)

    def _or_instead(self, name: str, answer: Answer) -> Answer:
        async def handle(request: web.Request) -> web.StreamResponse:
            self.requests[name] += 1
            if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
                await request.read()
                return _json(ErrorPayload("who are you?"), 401)
            return await self.instead.get(name, answer)(request)

        return handle

    async def _submit(self, request: web.Request) -> web.Response:
        key = request.headers.get("Idempotency-Key", "")
        names = set()
        async for part in await request.multipart():
            assert isinstance(part, aiohttp.BodyPartReader)
            names.add(part.name or "")
            await part.read()
        known = [payload_id for payload_id, other in self.keys.items() if other == key]
        if known:
            return _json(self.payloads[known[0]])
        payload_id, self._next_id = self._next_id, self._next_id + 1
        self.keys[payload_id], self.names[payload_id] = key, names
        self.payloads[payload_id] = Payload(payload_id, PayloadStatus.PREPARED)
        self.submitted.put_nowait(payload_id)
        return _json(self.payloads[payload_id])

    async def _retrieve(self, request: web.Request) -> web.Response:
        payload_id = int(request.match_info["id"])
        if payload_id not in self.payloads:
            return _json(ErrorPayload("no such payload"), 404)
        headers = {"Idempotency-Key": self.keys[payload_id]}
        payload = self.payloads[payload_id]
        if payload.status is PayloadStatus.COMPLETED:
            body = self.results[payload_id]
            return web.Response(body=body, content_type="application/zip", headers=headers)
        return _json(payload, headers=headers)

    async def _partial(self, request: web.Request) -> web.Response:
        payload_id = int(request.match_info["id"])
        if payload_id not in self.payloads:
            return _json(ErrorPayload("no such payload"), 404)
        return web.Response(body=zip_of(partial="so far"), content_type="application/zip")

    async def _discard(self, request: web.Request) -> web.Response:
        self.discarded.update(int(text) for text in request.query["ids"].split(","))
        return web.json_response({"discarded": sorted(self.discarded)})

    async def _kill(self, request: web.Request) -> web.Response:
        payload_id = int(request.match_info["id"])
        if payload_id not in self.payloads:
            return _json(ErrorPayload("no such payload"), 404)
        if self.payloads[payload_id].status in (PayloadStatus.PREPARED, PayloadStatus.RUNNING):
            self.report(payload_id, PayloadStatus.KILLED)
        return _json(self.payloads[payload_id])

    async def _kill_key(self, request: web.Request) -> web.Response:
        key = request.headers["Idempotency-Key"]
        self.killed_keys.append(key)
        for payload_id, other in self.keys.items():
            if other == key:
                self.report(payload_id, PayloadStatus.KILLED)
                return _json(self.payloads[payload_id])
        return _json(Payload(4_000_000_000, PayloadStatus.KILLED))

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        stream: asyncio.Queue[bytes] = asyncio.Queue()
        self._streams.add(stream)
        stream.put_nowait(self._load())
        self.connected.set()
        try:
            while event := await stream.get():
                await response.write(event)
        except ConnectionError:
            pass
        finally:
            self._streams.discard(stream)
        return response

    async def _end_streams(self, app: web.Application) -> None:
        self._push(b"")


def _json(
    message: msgspec.Struct, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(message),
        status=status,
        content_type="application/json",
        headers=headers,
    )


def answering(status: int, text: str = "{}", content_type: str = "application/json") -> Answer:
    """An answer that is always the same."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=status, text=text, content_type=content_type)

    return answer


async def never(request: web.Request) -> web.Response:
    """Take the request and never answer."""
    await request.read()
    await asyncio.Event().wait()
    raise AssertionError


async def hang_up(request: web.Request) -> web.Response:
    """Read the request, then break the connection."""
    await request.read()
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
