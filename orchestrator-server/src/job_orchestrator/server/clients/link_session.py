"""One open link to a client: requests with their answers, and the events of the client."""

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

import msgspec

from job_orchestrator.common.messages.payloads import (
    InventoryEntry,
    LoadEvent,
    Payload,
    PayloadEvent,
)
from job_orchestrator.common.protocol import link
from job_orchestrator.common.protocol.decoding import MAX_VERSION_BYTES, shortened
from job_orchestrator.common.runtime.clock import steady_time
from job_orchestrator.common.status import PayloadStatus
from job_orchestrator.common.web.link_socket import LinkBroken, LinkSocket, QueueFull
from job_orchestrator.server.clients.base import ClientEvent, EndedPayload
from job_orchestrator.server.errors import (
    AnswerLost,
    ClientBusy,
    ClientDisconnected,
    ClientError,
    ClientFailed,
    ClientRefused,
    ClientTimeout,
    PayloadGivenBack,
    PayloadLost,
)

MAX_EVENTS = 20_000
"""Events that wait to be handled; a client that sends more is disconnected."""

MAX_RESULT_BYTES = 16 << 20
"""Limit of the results that wait to be handled. Those beyond it are fetched by HTTP."""

MAX_ENTRIES = 1_000_000
"""Payloads in an inventory."""


@dataclass(eq=False)
class _Pending:
    """A request without an answer. ``ordinal`` is that of its item in the queue."""

    ordinal: int
    answer: "asyncio.Future[link.Answer]"
    entries: list[InventoryEntry] = field(default_factory=list)


class LinkSession:
    """One connection to a client, which is named ``client`` in errors.

    ``run`` reads until the link breaks. Then every request that waits fails: as ``AnswerLost`` if
    it was sent, else as ``ClientDisconnected``.
    """

    def __init__(
        self,
        client: str,
        socket: LinkSocket,
        hello: link.ClientHello,
        now: Callable[[], float] = steady_time,
    ) -> None:
        self._client = client
        self._socket = socket
        # Random, so that an answer of an earlier connection answers nothing.
        self._numbers = secrets.randbits(48)
        self._pending: dict[int, _Pending] = {}
        self._events: deque[ClientEvent] = deque([_load(hello.load)])
        self._now = now
        # What has to be added to a time of the client's clock; None: not known.
        self._behind_s: float | None = None
        self._compare_clocks(hello.now)
        self._result_bytes = 0
        self._arrived = asyncio.Event()
        self._problem: ClientError | None = None

    @property
    def is_open(self) -> bool:
        """True until the link breaks."""
        return self._problem is None

    async def run(self, silence_s: float) -> None:
        """Read until the link breaks, or until nothing has arrived for ``silence_s``."""
        try:
            await self._socket.run(self._received, silence_s=silence_s)
        except LinkBroken as error:
            kind = ClientTimeout if error.silent else AnswerLost
            self._problem = kind(f"{self._client} is disconnected: {error}")
        except link.MalformedItem as error:
            self._problem = ClientFailed(f"{self._client} sent what is {error}")
        finally:
            self._fail_pending()
            self._arrived.set()

    async def events(self) -> AsyncGenerator[ClientEvent, None]:
        """Yield what the client reports; raises a ``ClientError`` when the link has broken."""
        while True:
            while self._events:
                event = self._events.popleft()
                if isinstance(event, EndedPayload):
                    self._result_bytes -= len(event.results)
                yield event
            if self._problem is not None:
                raise _copy(self._problem)
            self._arrived.clear()
            await self._arrived.wait()

    async def payload(
        self, new_request: Callable[[int], link.Request], timeout_s: float
    ) -> Payload:
        """Send a request that is answered with the state of a payload. Raises ``ClientError``."""
        answer = await self._ask(new_request, timeout_s)
        if isinstance(answer, link.PayloadState):
            return Payload(
                answer.id,
                answer.status,
                exit_code=answer.exit_code,
                message=shortened(answer.message),
                at=self._here(answer.at),
            )
        raise self._unexpected(answer)

    async def recall(self, key: str, timeout_s: float) -> bool:
        """Take back a payload; returns False if it has started."""
        answer = await self._ask(lambda number: link.Recall(number, key), timeout_s)
        if isinstance(answer, link.Recalled):
            return answer.ended
        raise self._unexpected(answer)

    async def acknowledge(self, ids: list[int], timeout_s: float) -> None:
        """Confirm that results are stored."""
        answer = await self._ask(lambda number: link.Acknowledge(number, ids), timeout_s)
        if not isinstance(answer, link.Acknowledged):
            raise self._unexpected(answer)

    async def inventory(self, timeout_s: float) -> list[InventoryEntry]:
        """Return all payloads that the client has."""
        answer = await self._ask(link.ListPayloads, timeout_s)
        if isinstance(answer, link.Inventory):
            return answer.entries
        raise self._unexpected(answer)

    async def _ask(
        self, new_request: Callable[[int], link.Request], timeout_s: float
    ) -> link.Answer:
        """Send a request and wait for its answer."""
        self._numbers += 1
        number = self._numbers
        item = link.encode_item(new_request(number))
        pending = None
        try:
            async with asyncio.timeout(timeout_s):
                await self._socket.room(len(item))
                if self._problem is not None:
                    raise ClientDisconnected(str(self._problem))
                pending = self._pending[number] = _Pending(
                    self._socket.put(item), asyncio.get_running_loop().create_future()
                )
                answer = await pending.answer
        except QueueFull as error:
            raise ClientBusy(f"{self._client} can't be sent more: {error}") from error
        except TimeoutError as error:
            if pending is None or self._socket.withdraw(pending.ordinal):
                raise ClientDisconnected(f"{self._client} does not read what is sent") from error
            raise ClientTimeout(f"{self._client} stopped answering") from error
        finally:
            self._pending.pop(number, None)
        if isinstance(answer, link.Refused):
            raise self._refusal(answer)
        return answer

    def _received(self, content: bytes) -> None:
        for item in link.decode_from_client(content):
            match item:
                case link.Started():
                    at = self._here(item.at)
                    self._report(PayloadEvent(item.id, PayloadStatus.RUNNING, at=at))
                case link.SlotFree():
                    message = shortened(item.message)
                    running = PayloadStatus.RUNNING
                    self._report(PayloadEvent(item.id, running, None, message, packing=True))
                case link.Ended():
                    self._report(self._end(item))
                case link.Load():
                    self._compare_clocks(item.now)
                    self._report(_load(item.load))
                case _:
                    self._answered(item)

    def _answered(self, answer: link.Answer) -> None:
        """Hand an answer to the request that waits for it; a late one has no effect."""
        pending = self._pending.get(answer.number)
        if pending is None or pending.answer.done():
            return
        if isinstance(answer, link.Inventory):
            pending.entries += answer.entries
            if len(pending.entries) > MAX_ENTRIES:
                raise link.MalformedItem(f"an inventory of more than {MAX_ENTRIES} payloads")
            if not answer.last:
                return
            answer = link.Inventory(answer.number, pending.entries, last=True)
        pending.answer.set_result(answer)

    def _end(self, item: link.Ended) -> ClientEvent:
        message = shortened(item.message)
        at = self._here(item.at)
        run_s = msgspec.UNSET if item.run_s is None else item.run_s
        event = PayloadEvent(item.id, item.status, item.exit_code, message, at=at, run_s=run_s)
        if item.results is None or item.key is None:
            return event
        if self._result_bytes + len(item.results) > MAX_RESULT_BYTES:
            return event
        self._result_bytes += len(item.results)
        return EndedPayload(event, item.key, item.results, item.sha256)

    def _compare_clocks(self, now: float | None) -> None:
        """Record by how much the client's clock is behind. Repeated, because clocks drift."""
        if now is not None:
            self._behind_s = self._now() - now

    def _here(self, at: float | None) -> float | msgspec.UnsetType:
        """Convert a time of the client's clock to one of the clock of this server."""
        if at is None or self._behind_s is None:
            return msgspec.UNSET
        return at + self._behind_s

    def _report(self, event: ClientEvent) -> None:
        if len(self._events) >= MAX_EVENTS:
            raise link.MalformedItem(f"more than {MAX_EVENTS} reports that nobody has read")
        self._events.append(event)
        self._arrived.set()

    def _fail_pending(self) -> None:
        problem = self._problem or AnswerLost(f"{self._client} is disconnected")
        self._problem = problem
        for pending in self._pending.values():
            if not pending.answer.done():
                lost = (
                    _copy(problem) if isinstance(problem, AnswerLost) else AnswerLost(str(problem))
                )
                was_sent = pending.ordinal < self._socket.sent
                pending.answer.set_exception(lost if was_sent else ClientDisconnected(str(problem)))

    def _refusal(self, refused: link.Refused) -> ClientError:
        reason = shortened(refused.message)
        message = f"{self._client} answered {refused.reason}: {reason}"
        match refused.reason:
            case link.Refusal.BUSY:
                return ClientBusy(message)
            case link.Refusal.REFUSED:
                return ClientRefused(message, reason)
            case link.Refusal.GIVEN_BACK:
                return PayloadGivenBack(message)
            case link.Refusal.LOST:
                return PayloadLost(message)
            case link.Refusal.FAILED:
                return ClientFailed(message)

    def _unexpected(self, answer: link.Answer) -> ClientError:
        kind = type(answer).__name__
        return ClientFailed(f"{self._client} answered with {kind}, which was not asked for")


def _copy(problem: ClientError) -> ClientError:
    """Return an equal error: each waiting request raises one, with a traceback of its own."""
    return type(problem)(str(problem))


def _load(load: LoadEvent) -> LoadEvent:
    """Return a load event with a long version cut off."""
    return msgspec.structs.replace(load, version=shortened(load.version, MAX_VERSION_BYTES))
