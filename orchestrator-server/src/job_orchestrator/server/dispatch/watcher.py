"""Watches one client: holds its event stream, or asks for its load if it has none."""

import asyncio
import logging

from job_orchestrator.common.errors import DomainError
from job_orchestrator.common.messages import decode_load_event, decode_payload_event
from job_orchestrator.common.protocol.sse import Event
from job_orchestrator.server.clients.http_connection import EventsNotOffered
from job_orchestrator.server.clients.registry import Client, ClientPool
from job_orchestrator.server.dispatch.abandoned import Strays
from job_orchestrator.server.dispatch.collector import Getter

logger = logging.getLogger(__name__)

LOAD_INTERVAL_S = 5.0
LOAD_READINGS = 12
"""How often an older client's load is read before its event stream is tried again."""


class Watcher:
    """The pass of one client's watcher; its loop runs it again whenever it ends.

    A pass lasts as long as the event stream. When a stream breaks, the next pass connects again;
    only when that fails is the client unreachable and its jobs Unknown.
    """

    def __init__(self, client: Client, pool: ClientPool, getter: Getter, strays: Strays) -> None:
        self._client = client
        self._pool = pool
        self._getter = getter
        self._strays = strays
        self._reachable: bool | None = None  # not known yet

    async def run_pass(self) -> None:
        """Follow the client until it breaks off."""
        try:
            await self._follow_events()
        except EventsNotOffered:
            await self._read_load()
        except DomainError as error:
            await self._broke_off(str(error))
        finally:
            self._client.pushes = False

    async def _follow_events(self) -> None:
        async with self._client.api.events() as events:
            # From here on every change is pushed; what changed before is asked for.
            self._client.pushes = True
            # First, so that a job which was given up is not run beside its next attempt.
            await self._strays.end()
            self._back()
            async for event in events:
                self._take(event)

    def _take(self, event: Event) -> None:
        if event.kind == "payload":
            self._getter.on_event(self._client, decode_payload_event(event.data))
        elif event.kind == "load":
            self._pool.reported(self._client, decode_load_event(event.data))

    async def _read_load(self) -> None:
        try:
            for _ in range(LOAD_READINGS):
                self._client.cpu = await self._client.api.load()
                if not self._reachable:
                    self._back()
                await asyncio.sleep(LOAD_INTERVAL_S)
        except DomainError as error:
            await self._broke_off(str(error))

    def _back(self) -> None:
        if not self._reachable:
            logger.info("Client %s is connected", self._client.api)
        self._reachable = True
        self._client.draining = False  # if it is, its first event says so
        self._pool.works(self._client)
        self._getter.reconcile(self._client)

    async def _broke_off(self, problem: str) -> None:
        if self._client.pushes:
            logger.info("%s", problem)  # the next pass tells whether the client is still there
            return
        if self._reachable is not False:
            logger.warning("%s", problem)
        self._reachable = False
        self._client.problem = problem
        await self._getter.client_lost(self._client, problem)
