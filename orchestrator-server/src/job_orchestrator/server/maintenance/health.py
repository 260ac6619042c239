"""Health check of jo-server."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from job_orchestrator.common.errors import Unhealthy
from job_orchestrator.common.runtime.loops import Loop
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.server.errors import StoreError
from job_orchestrator.server.files.base import JobFiles
from job_orchestrator.server.store.base import JobStore

TIMEOUT_S = 5.0


@dataclass(frozen=True)
class HealthCheck:
    """Checks the database, the data folder and the background loops."""

    store: JobStore
    files: JobFiles
    loops: Sequence[Loop]

    async def __call__(self) -> None:
        """Raise ``Unhealthy``, which names the failing part."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self.store.check()
        except (StoreError, TimeoutError) as error:
            raise Unhealthy(f"The database can't be written: {error or 'no answer'}") from error
        try:
            await in_thread(self.files.check)
        except OSError as error:
            raise Unhealthy(f"The data folder can't be written: {error.strerror}") from error
        for loop in self.loops:
            if not loop.alive:
                raise Unhealthy(f"The {loop.name} has stopped; restart the server")
