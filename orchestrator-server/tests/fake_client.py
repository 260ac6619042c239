"""Fake jo-client over real HTTP, without processes. A test controls it, misbehaviour included."""

import asyncio
import hashlib
import io
import zipfile
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable

import aiohttp
import msgspec
from aiohttp import web

from fake_link import FakeLink
from job_orchestrator.common.messages.payloads import (
    ClientLimits,
    ErrorPayload,
    InventoryEntry,
    LoadEvent,
    Payload,
    PayloadEvent,
)
from job_orchestrator.common.messages.resources import Resources, resources_of
from job_orchestrator.common.protocol import link
from job_orchestrator.common.protocol.digests import repr_digest
from job_orchestrator.common.protocol.sse import encode_event
from job_orchestrator.common.status import PayloadStatus

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
StartClient = Callable[["FakeClient"], Awaitable[str]]


def zip_of(**files: str) -> bytes:
    """Return a ZIP file with these files."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return body.getvalue()


class FakeClient:
    """Keeps payloads; a test changes their state with ``report``.

    ``instead`` maps "submit", "retrieve", "partial", "acknowledge", "kill", "kill_key", "logs",
    "inventory", "load", "events", "link" or "recall" to another answer. ``requests`` counts
    requests by these names.
    """

    def __init__(self) -> None:
        self.payloads: dict[int, Payload] = {}
        self.keys: dict[int, str] = {}
        self.names: dict[int, set[str]] = {}
        self.files: dict[int, dict[str, bytes]] = {}
        self.selections: list[tuple[list[str], list[str]]] = []
        self.wanted: dict[int, Resources] = {}
        self.resources: Resources | None = None
        self.results: dict[int, bytes] = {}
        self.acknowledged: set[int] = set()
        self.killed_keys: list[str] = []
        self.requests: Counter[str] = Counter()
        self.instead: dict[str, Answer] = {}
        self.submitted: asyncio.Queue[int] = asyncio.Queue()
        self.connected = asyncio.Event()
        self.slots = 10
        self.draining = False
        self.token = ""
        self.limits: ClientLimits | None = None
        self.offers_link = False
        self.small_bytes = 64_000
        self._tasks: list[asyncio.Future[None]] = []
        self.links: list[FakeLink] = []
        self.clock: Callable[[], float] | None = None
        self.run_s: float | None = None
        self._streams: set[asyncio.Queue[bytes]] = set()
        self._next_id = 1

    def app(self) -> web.Application:
        """Create the application to serve."""
        app = web.Application()
        app.router.add_post("/submit", self._or_instead("submit", self.submit))
        app.router.add_get("/retrieve/{id}", self._or_instead("retrieve", self.retrieve))
        app.router.add_get("/retrieve_partial/{id}", self._or_instead("partial", self.partial))
        app.router.add_delete("/retrieve", self._or_instead("acknowledge", self.acknowledge))
        app.router.add_post("/kill/{id}", self._or_instead("kill", self.kill))
        app.router.add_post("/kill", self._or_instead("kill_key", self.kill_key))
        app.router.add_get("/logs/{id}", self._or_instead("logs", answering(404)))
        app.router.add_get("/payloads", self._or_instead("inventory", self.inventory))
        app.router.add_get("/load", self._or_instead("load", answering(200, "12.5")))
        app.router.add_get("/events", self._or_instead("events", self.events))
        app.router.add_get("/link", self._or_instead("link", self.link))
        app.router.add_post("/recall", self._or_instead("recall", self.recall))
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
        """Change the state of a payload, and push that."""
        run_s = self.run_s if self.run_s is not None and status.has_ended else msgspec.UNSET
        self.payloads[payload_id] = msgspec.structs.replace(
            self.payloads[payload_id],
            status=status,
            exit_code=exit_code,
            message=message,
            run_s=run_s,
        )
        if push:
            event = PayloadEvent(payload_id, status, exit_code, message, run_s=run_s)
            self.push(encode_event("payload", msgspec.json.encode(event)))
            self._tell_links(payload_id)

    def complete(self, payload_id: int, **files: str) -> None:
        """Complete a payload with results, and push that."""
        self.results[payload_id] = zip_of(**(files or {"out": "x"}))
        self.report(payload_id, PayloadStatus.COMPLETED, exit_code=0)

    def drain(self) -> None:
        """Push that no new payloads are accepted."""
        self.draining = True
        self.push(self.load_event())

    def forget(self, payload_id: int) -> None:
        """Drop a payload, and push that."""
        del self.payloads[payload_id], self.keys[payload_id]
        event = PayloadEvent(payload_id, PayloadStatus.CLEANED)
        self.push(encode_event("payload", msgspec.json.encode(event)))

    def _tell_links(self, payload_id: int) -> None:
        payload = self.payloads[payload_id]
        key = self.keys[payload_id]
        item: link.Report = link.Started(payload_id, key)
        if payload.status.has_ended:
            results = self.results.get(payload_id)
            item = link.Ended(
                payload_id,
                key,
                payload.status,
                payload.exit_code,
                payload.message or "",
                results if results is not None and len(results) < self.small_bytes else None,
                hashlib.sha256(results).digest() if results is not None else None,
                run_s=self.run_s,
            )
        for each in self.links:
            self._tasks.append(asyncio.ensure_future(each.send(item)))

    async def next_payload(self) -> int:
        """Wait for the next payload that is submitted; return its id."""
        async with asyncio.timeout(60):
            return await self.submitted.get()

    def hold_submits(self) -> asyncio.Event:
        """Answer no submit before the returned event is set."""
        gate = asyncio.Event()

        async def wait(request: web.Request) -> web.StreamResponse:
            await gate.wait()
            return await self.submit(request)

        self.instead["submit"] = wait
        return gate

    def load(self) -> LoadEvent:
        """Return the client's load."""
        return LoadEvent(
            *(1.0, 1.0, self.slots),
            running=0,
            waiting=0,
            draining=self.draining,
            limits=self.limits,
            resources=self.resources,
        )

    def load_event(self) -> bytes:
        """Return the client's load as an event."""
        return encode_event("load", msgspec.json.encode(self.load()))

    def go_away(self) -> None:
        """Break the event stream, and refuse new ones until ``come_back``."""
        self.instead["events"] = hang_up
        self.push(b"")

    def come_back(self) -> None:
        """Accept event streams again."""
        del self.instead["events"]

    def push(self, event: bytes) -> None:
        """Send bytes to all event streams; empty bytes close the streams."""
        for stream in self._streams:
            stream.put_nowait(event)

    def _or_instead(self, name: str, answer: Answer) -> Answer:
        async def handle(request: web.Request) -> web.StreamResponse:
            self.requests[name] += 1
            if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
                await request.read()
                return _json(ErrorPayload("unknown token"), 401)
            return await self.instead.get(name, answer)(request)

        return handle

    async def submit(self, request: web.Request) -> web.Response:
        """Accept a payload, or return the one that the key has."""
        key = request.headers.get("Idempotency-Key", "")
        files: dict[str, bytes] = {}
        fields = defaultdict[str, list[str]](list)
        async for part in await request.multipart():
            assert isinstance(part, aiohttp.BodyPartReader)
            content = await part.read()
            if part.filename is None:
                fields[part.name or ""].append(content.decode())
            else:
                files[part.name or ""] = bytes(content)
        known = [payload_id for payload_id, other in self.keys.items() if other == key]
        if known:
            return _json(self.payloads[known[0]])
        payload_id, self._next_id = self._next_id, self._next_id + 1
        self.keys[payload_id], self.names[payload_id] = key, set(files)
        self.files[payload_id] = files
        self.payloads[payload_id] = Payload(payload_id, PayloadStatus.PREPARED)
        self.wanted[payload_id] = resources_of(fields)
        self.selections.append((fields["outputs"], fields["results"]))
        self.submitted.put_nowait(payload_id)
        return _json(self.payloads[payload_id])

    async def retrieve(self, request: web.Request) -> web.Response:
        """Return the results of a payload, or its state."""
        payload_id = int(request.match_info["id"])
        if payload_id not in self.payloads:
            return _json(ErrorPayload("no such payload"), 404)
        headers = {"Idempotency-Key": self.keys[payload_id]}
        payload = self.payloads[payload_id]
        if payload.status is PayloadStatus.COMPLETED:
            body = self.results[payload_id]
            if self.run_s is not None:
                headers["Run-Seconds"] = str(self.run_s)
            headers["Repr-Digest"] = repr_digest(hashlib.sha256(body).digest())
            return web.Response(body=body, content_type="application/zip", headers=headers)
        return _json(payload, headers=headers)

    async def partial(self, request: web.Request) -> web.Response:
        """Return partial output."""
        payload_id = int(request.match_info["id"])
        if payload_id not in self.payloads:
            return _json(ErrorPayload("no such payload"), 404)
        return web.Response(body=zip_of(partial="so far"), content_type="application/zip")

    async def acknowledge(self, request: web.Request) -> web.Response:
        """Record that results are stored at the server."""
        self.acknowledged.update(int(text) for text in request.query["ids"].split(","))
        return web.json_response({"discarded": sorted(self.acknowledged)})

    async def kill(self, request: web.Request) -> web.Response:
        """Kill a payload that has not ended."""
        payload_id = int(request.match_info["id"])
        if payload_id not in self.payloads:
            return _json(ErrorPayload("no such payload"), 404)
        if self.payloads[payload_id].status in (PayloadStatus.PREPARED, PayloadStatus.RUNNING):
            self.report(payload_id, PayloadStatus.KILLED)
        return _json(self.payloads[payload_id])

    async def kill_key(self, request: web.Request) -> web.Response:
        """Kill the payload of a key, now or when it is submitted."""
        key = request.headers["Idempotency-Key"]
        self.killed_keys.append(key)
        for payload_id, other in self.keys.items():
            if other == key:
                self.report(payload_id, PayloadStatus.KILLED)
                return _json(self.payloads[payload_id])
        return _json(Payload(4_000_000_000, PayloadStatus.KILLED))

    async def inventory(self, request: web.Request) -> web.Response:
        """List the payloads whose results were not acknowledged."""
        entries = [
            InventoryEntry(payload_id, self.keys[payload_id], payload.status)
            for payload_id, payload in self.payloads.items()
            if payload_id not in self.acknowledged
        ]
        return web.Response(body=msgspec.json.encode(entries), content_type="application/json")

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Open an event stream, which begins with the load."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        stream: asyncio.Queue[bytes] = asyncio.Queue()
        self._streams.add(stream)
        stream.put_nowait(self.load_event())
        self.connected.set()
        try:
            while event := await stream.get():
                await response.write(event)
        except ConnectionError:
            pass
        finally:
            self._streams.discard(stream)
        return response

    async def link(self, request: web.Request) -> web.StreamResponse:
        """Open a link, if the client is not an older one."""
        if not self.offers_link:
            return _json(ErrorPayload("nothing is here"), 404)
        opened = FakeLink(request, self.clock() if self.clock is not None else None)
        self.links.append(opened)
        self.connected.set()
        try:
            return await opened.serve(self.load())
        finally:
            self.links.remove(opened)

    async def recall(self, request: web.Request) -> web.Response:
        """Take back a payload that has not started."""
        key = request.headers["Idempotency-Key"]
        for payload_id, other in self.keys.items():
            if other == key and self.payloads[payload_id].status is PayloadStatus.PREPARED:
                del self.payloads[payload_id], self.keys[payload_id]
                return web.json_response(True)
        if key not in self.keys.values():
            return _json(ErrorPayload("no such payload"), 404)
        return web.json_response(False)

    async def _end_streams(self, app: web.Application) -> None:
        self.push(b"")
        for each in tuple(self.links):
            await each.close()


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
    """Return a handler that always gives the same answer."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=status, text=text, content_type=content_type)

    return answer


async def never(request: web.Request) -> web.Response:
    """Read the request and never answer."""
    await request.read()
    await asyncio.Event().wait()
    raise AssertionError


async def hang_up(request: web.Request) -> web.Response:
    """Read the request, then break the connection."""
    await request.read()
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
