"""What there is of a payload's output now, packed for whoever asks: within bounds."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import IO

from job_orchestrator.client.errors import TooManyPartials
from job_orchestrator.client.results.packer import Packer
from job_orchestrator.client.workspace.layout import Workspace
from job_orchestrator.common.runtime.limiter import KeyedLimiter
from job_orchestrator.common.runtime.threads import in_thread

MAX_PER_PAYLOAD = 2
"""How many copies of a payload's output are packed or on their way at once.

Each takes as much room as the results, for as long as its reader takes it."""


class PartialResults:
    """Packs them, and counts them until they are delivered."""

    def __init__(self, packer: Packer) -> None:
        self._packer = packer
        self._copies = KeyedLimiter[int]()

    @asynccontextmanager
    async def packed(self, payload_id: int, workspace: Workspace) -> AsyncIterator[IO[bytes]]:
        """A ZIP of what there is now; nothing of it is left after the block.

        Raises ``TooManyPartials``, ``StorageFull``, ``ArchiveFailed``.
        """

        def refusal() -> TooManyPartials:
            return TooManyPartials(
                f"The output of payload {payload_id} so far is being fetched"
                f" {MAX_PER_PAYLOAD} times already; try again when that is done"
            )

        with self._copies.slot(MAX_PER_PAYLOAD, payload_id, refusal):
            file = await self._packer.pack_partial(workspace)
            try:
                yield file
            finally:
                await in_thread(file.close)
