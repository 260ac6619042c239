"""Partial results: the present output of a payload, packed on request and within bounds."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import IO

from job_orchestrator.client.errors import TooManyPartials
from job_orchestrator.client.results.packer import Packer
from job_orchestrator.client.workspace.layout import Workspace
from job_orchestrator.common.runtime.limiter import KeyedLimiter
from job_orchestrator.common.runtime.threads import in_thread

MAX_PER_PAYLOAD = 2
"""Concurrent copies of a payload's output, from their packing to their delivery.

Each takes as much disk space as the results, until its reader has received it.
"""


class PartialResults:
    """Packs partial results, and counts them until they are delivered."""

    def __init__(self, packer: Packer) -> None:
        self._packer = packer
        self._copies = KeyedLimiter[int]()

    @asynccontextmanager
    async def packed(
        self, payload_id: int, workspace: Workspace
    ) -> AsyncIterator[tuple[IO[bytes], bytes]]:
        """Provide a ZIP of the present files and its digest; it is removed after the block.

        Raises ``TooManyPartials``, ``StorageFull``, ``ArchiveFailed``.
        """

        def refusal() -> TooManyPartials:
            return TooManyPartials(
                f"The output of payload {payload_id} so far is being fetched"
                f" {MAX_PER_PAYLOAD} times already; try again when that is done"
            )

        with self._copies.slot(MAX_PER_PAYLOAD, payload_id, refusal):
            file, sha256 = await self._packer.pack_partial(workspace)
            try:
                yield file, sha256
            finally:
                await in_thread(file.close)
