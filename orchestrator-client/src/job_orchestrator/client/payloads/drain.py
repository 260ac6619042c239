"""Drains the client before it stops: running payloads end, waiting ones are given back."""

import asyncio
import logging
from dataclasses import dataclass

from job_orchestrator.client.payloads.events import EventHub
from job_orchestrator.client.payloads.intake import Intake
from job_orchestrator.client.payloads.load import LoadMeter
from job_orchestrator.client.payloads.runner import Runner
from job_orchestrator.client.payloads.store import PayloadStore
from job_orchestrator.common.status import PayloadStatus

logger = logging.getLogger(__name__)

HAND_OVER_S = 5.0
"""Seconds for a server that follows the events to fetch the results of ended payloads."""

POLL_S = 0.05


@dataclass(frozen=True)
class Drain:
    """Ends the client's work in order, while the client still answers requests.

    1. No payload is accepted any more.
    2. Payloads that wait for a slot are given back.
    3. Running payloads have ``timeout_s`` to end by themselves; their results are fetched as usual.
    4. Payloads that still run are ended and given back.

    Payloads whose runs survive a restart are neither ended nor given back: jo-client takes them
    over at its next start.

    A payload that is given back is forgotten, and an event reports it to the servers, which run the
    job elsewhere immediately instead of waiting for this client to return.
    """

    store: PayloadStore
    intake: Intake
    runner: Runner
    meter: LoadMeter
    hub: EventHub
    timeout_s: float
    survives_restart: bool = False
    hand_over_s: float = HAND_OVER_S

    async def __call__(self) -> None:
        """Drain the client; on return no payload runs any more, except those that survive."""
        self.intake.open = False
        await self.meter.announce_draining()
        running, waiting = await self.store.counts()
        if self.survives_restart:
            logger.info(
                "Stopping: %d payloads go on; the next start takes them over",
                running + waiting,
            )
            await self.runner.stop()
            return
        if running:
            logger.info("Stopping: %d payloads have %g s to end", running, self.timeout_s)
        await self.store.give_back(PayloadStatus.PREPARED)
        await self.runner.drain(self.timeout_s)
        await self.runner.stop()
        await self.store.give_back(PayloadStatus.PREPARED, PayloadStatus.RUNNING)
        await self._hand_over()

    async def _hand_over(self) -> None:
        """Wait until the servers have fetched all results and seen all losses.

        Waits at most ``hand_over_s``, and only for servers that follow the events: others do not
        know that there is something to fetch.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.hand_over_s
        while self.hub.followed and await self.store.unseen_count() and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
