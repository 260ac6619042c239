"""Carries out the requests that servers send over their links."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence

from job_orchestrator.client.errors import PayloadGivenBack, PayloadNotFound
from job_orchestrator.client.model import PayloadRow
from job_orchestrator.client.payloads.intake import Intake
from job_orchestrator.client.payloads.retention import Retention
from job_orchestrator.client.payloads.runner import Runner
from job_orchestrator.client.payloads.store import PayloadStore
from job_orchestrator.common.errors import BadRequest, DomainError, StorageFull, TryLater
from job_orchestrator.common.logs.context import REQUEST_ID, logging_about
from job_orchestrator.common.messages.payloads import InventoryEntry
from job_orchestrator.common.protocol import link
from job_orchestrator.common.runtime.clock import steady_time
from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.runtime.loops import TaskOwner

logger = logging.getLogger(__name__)

MAX_CONCURRENT = 2000
"""Requests of all links that are carried out at the same time. Others are refused as busy."""

MAX_FILE_BYTES = 64 << 20
"""Limit of the files in those requests."""

TOO_MANY = "This client carries out too many requests at the moment; repeat it later"


class LinkRequests:
    """Carries out each request in a task of its own, to its end even if its link breaks."""

    def __init__(
        self, intake: Intake, runner: Runner, store: PayloadStore, retention: Retention
    ) -> None:
        self._intake = intake
        self._runner = runner
        self._store = store
        self._retention = retention
        self._owner = TaskOwner("link", limit=MAX_CONCURRENT)
        self._file_bytes = 0
        # Payloads that wait for a slot start in the order in which their server has sent them.
        self._in_order = asyncio.Lock()

    def begin(self, request: link.Request, send: Callable[[link.Answer], None]) -> None:
        """Begin to carry out a request; ``send`` is called with each answer."""
        size = len(request.files) if isinstance(request, link.Assign) else 0
        if not self._owner.free or self._file_bytes + size > MAX_FILE_BYTES:
            send(link.Refused(request.number, link.Refusal.BUSY, TOO_MANY))
            return
        self._file_bytes += size
        self._owner.spawn(self._carry_out(request, send, size), "request")

    async def close(self) -> None:
        """Cancel the requests that are under way; servers repeat them."""
        await self._owner.close()

    async def _carry_out(
        self, request: link.Request, send: Callable[[link.Answer], None], size: int
    ) -> None:
        try:
            async for answer in self._answers(request):
                send(answer)
        except DomainError as error:
            reason = _reason(error)
            if reason is link.Refusal.FAILED:
                logger.error("A request of a server failed: %s", error)
            send(link.Refused(request.number, reason, str(error)))
        except Exception:
            logger.exception("A request of a server failed")
            text = "Internal error; the log of the client has the details"
            send(link.Refused(request.number, link.Refusal.FAILED, text))
        finally:
            self._file_bytes -= size

    async def _answers(self, request: link.Request) -> AsyncIterator[link.Answer]:
        match request:
            case link.Assign():
                yield _state(request.number, await self._assign(request))
            case link.Kill():
                yield _state(request.number, (await self._runner.kill(request.id))[0])
            case link.KillKey():
                row = await self._intake.payload_of(request.key)
                yield _state(request.number, (await self._runner.kill(row.id))[0])
            case link.Recall():
                yield link.Recalled(request.number, await self._runner.recall(request.key))
            case link.Acknowledge():
                await self._retention.clean(request.ids)
                yield link.Acknowledged(request.number)
            case link.ListPayloads():
                rows = await self._store.kept()
                for begin in range(0, max(len(rows), 1), link.INVENTORY_BATCH):
                    end = begin + link.INVENTORY_BATCH
                    yield link.Inventory(
                        request.number, _entries(rows[begin:end]), end >= len(rows)
                    )
                    await asyncio.sleep(0)

    async def _assign(self, request: link.Assign) -> PayloadRow:
        reach(Point.CLIENT_ASSIGNED)
        with logging_about(**{REQUEST_ID: request.request_id or None}):
            async with self._in_order:
                return await self._intake.submit_block(
                    request.files, request.fields, request.key, request.time_limit_s
                )


def _state(number: int, row: PayloadRow) -> link.PayloadState:
    status = row.reported_status
    return link.PayloadState(number, row.id, status, row.exit_code, row.message, steady_time())


def _entries(rows: Sequence[PayloadRow]) -> list[InventoryEntry]:
    return [InventoryEntry(row.id, row.key, row.reported_status) for row in rows]


def _reason(error: DomainError) -> link.Refusal:
    match error:
        case BadRequest():
            return link.Refusal.REFUSED
        case TryLater() | StorageFull():
            return link.Refusal.BUSY
        case PayloadGivenBack():
            return link.Refusal.GIVEN_BACK
        case PayloadNotFound():
            return link.Refusal.LOST
    return link.Refusal.FAILED
