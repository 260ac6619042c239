"""What a client does when it is told to stop, before it stops."""

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
"""How long a server that follows the events may take to fetch what has ended here."""

POLL_S = 0.05


@dataclass(frozen=True)
class Drain:
    """Ends the client's work in order, while it still answers.

    No new payloads; those that wait for a slot are given back at once; those that run have
    ``timeout_s`` to end by themselves, and their results are fetched as always. What runs then is
    ended and given back too. Given back is: forgotten, and the servers told, so that they run it
    elsewhere at once and need not wait for this client to return.
    """

    store: PayloadStore
    intake: Intake
    runner: Runner
    meter: LoadMeter
    hub: EventHub
    timeout_s: float

    async def __call__(self) -> None:
        """Drain; on return nothing runs any more."""
        self.intake.open = False
        await self.meter.tell_draining()
        running, _ = await self.store.counts()
        if running:
            logger.info("Stopping: %d payloads have %g s to end", running, self.timeout_s)
        await self.store.lose(PayloadStatus.PREPARED)
        await self.runner.drain(self.timeout_s)
        await self.runner.stop()
        await self.store.lose(PayloadStatus.PREPARED, PayloadStatus.RUNNING)
        await self._hand_over()

    async def _hand_over(self) -> None:
        """Wait until the servers have fetched what has ended, and seen what was lost.

        Not for long, and not for servers that don't follow the events: they would not know.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + HAND_OVER_S
        while self.hub.followed and await self.store.wanted() and loop.time() < until:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
