"""Fitness of the machine: after a fault it gets no payloads until a test script runs again."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from job_orchestrator.client.errors import MachineFault
from job_orchestrator.common.runtime.backoff import Backoff
from job_orchestrator.common.runtime.loops import Loop

logger = logging.getLogger(__name__)

INTERVAL_S = 0.5
BACKOFF = Backoff.exponential(1.0, 300.0)


class Fitness:
    """Records faults of the machine, and runs self-tests with back-off until one succeeds.

    ``problem`` is the fault; empty if the machine can run payloads. The delays grow over faults in
    a row, until ``note_started`` reports that a payload could be started.
    """

    def __init__(
        self,
        self_test: Callable[[], Awaitable[None]],
        announce: Callable[[str], Awaitable[None]],
        backoff: Backoff = BACKOFF,
    ) -> None:
        """Create the record. ``announce`` is called with each change of ``problem``."""
        self.problem = ""
        self._self_test = self_test
        self._announce = announce
        self._backoff = backoff
        self._failures = 0
        self._test_at = 0.0
        self.loop = Loop("self-test", self.run_pass, interval_s=INTERVAL_S)

    async def report(self, problem: str) -> None:
        """Record a fault. On return the servers have been notified of it."""
        if self.problem:
            return
        logger.error("This machine can't run payloads: %s", problem)
        self._plan_test()
        self.problem = problem
        await self._announce(problem)

    def describe(self) -> str:
        """Describe the fault for the health check; empty if there is none."""
        return self.problem and f"This machine can't run payloads: {self.problem}"

    def note_started(self) -> None:
        """Record that a payload could be started."""
        self._failures = 0

    async def run_pass(self) -> None:
        """Run the self-test if there is a fault and the delay has passed."""
        if not self.problem or asyncio.get_running_loop().time() < self._test_at:
            return
        try:
            await self._self_test()
        except MachineFault as error:
            logger.warning("The self-test failed: %s", error)
            self._plan_test()
            if str(error) != self.problem:
                self.problem = str(error)
                await self._announce(self.problem)
        else:
            logger.info("This machine can run payloads again")
            self.problem = ""
            await self._announce("")

    def _plan_test(self) -> None:
        self._failures += 1
        delay_s = self._backoff.delay_s(self._failures)
        self._test_at = asyncio.get_running_loop().time() + delay_s
