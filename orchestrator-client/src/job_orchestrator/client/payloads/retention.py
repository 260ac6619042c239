"""Removes the files of ended payloads: when their results are acknowledged, or after MAX_AGE."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from job_orchestrator.client.model import PayloadRow
from job_orchestrator.client.payloads.store import PayloadStore
from job_orchestrator.client.results.kept import KeptResults
from job_orchestrator.client.workspace.deferred_removal import DeferredRemoval, remove_if_small
from job_orchestrator.client.workspace.layout import Workspaces
from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.runtime.loops import Loop
from job_orchestrator.common.runtime.short_work import ShortWork
from job_orchestrator.common.runtime.threads import in_thread

logger = logging.getLogger(__name__)

BATCH = 200
MARKED = 1000
"""Payloads in one statement of SQL, whose variables are limited."""

FEW, TINY_ENTRIES = 16, 32
"""Folders that are removed in the event loop in a row, and limit of the entries of each."""

INTERVAL_S = 60.0
ROWS_KEPT_S = 3600.0
"""Seconds that the row of a Cleaned payload is kept after its end, for late repeated submits."""


class Retention:
    """Removes files of ended payloads; ``loops`` drive its pass.

    Folders with very many files are removed in the background, in ``large``, so that a request for
    the removal of small folders does not wait for a large one.
    """

    def __init__(
        self,
        store: PayloadStore,
        workspaces: Workspaces,
        kept: KeptResults,
        *,
        max_age_s: float,
    ) -> None:
        """Create the component. ``max_age_s`` counts from the end of a payload."""
        self._store = store
        self._workspaces = workspaces
        self._kept = kept
        self._max_age_s = max_age_s
        self._short = ShortWork()
        self.large = DeferredRemoval("large folders")
        self.loops: Sequence[Loop] = (
            Loop("retention", self.run_pass, interval_s=INTERVAL_S),
            self.large.loop,
        )

    async def run_pass(self) -> None:
        """Remove the files that are due, and the rows of payloads that were cleaned long ago."""
        while len(rows := await self._store.ended_before(self._max_age_s, BATCH)) > 0:
            await self.clean([row.id for row in rows])
        await self._store.delete_cleaned(ROWS_KEPT_S)

    async def clean(self, payload_ids: Sequence[int]) -> list[int]:
        """Remove the files of those of the payloads that have ended; return their ids.

        On return a large folder may still be in removal, but its files cannot be found any more.
        """
        rows: list[PayloadRow] = []
        for begin in range(0, len(payload_ids), MARKED):
            rows += await self._store.mark_cleaned(payload_ids[begin : begin + MARKED])
            await asyncio.sleep(0)
        reach(Point.CLIENT_DISCARDED)
        left: list[PayloadRow] = []
        for number, row in enumerate(rows, 1):
            # Results that are kept were packed in the event loop: nothing there may hang.
            is_tiny = self._kept.get(row.uuid) is not None
            if not (is_tiny and await self._short.run(self._remove_tiny, row)):
                left.append(row)
            self._kept.drop(row.uuid)
            if number % FEW == 0:
                await asyncio.sleep(0)  # lets other tasks run
        large = await in_thread(self._remove, left) if left else []
        for folder in large:
            self.large.add(folder)
            self.large.loop.wake()
        return [row.id for row in rows]

    def _remove_tiny(self, row: PayloadRow) -> bool:
        """Remove the folder of a payload; return False if that must be done in a thread."""
        folder = self._workspaces.of(row.uuid).root
        try:
            return remove_if_small(folder, TINY_ENTRIES)
        except OSError:
            return False

    def _remove(self, rows: Sequence[PayloadRow]) -> list[Path]:
        """Remove the folders of payloads; return the large ones, which are not removed yet."""
        large = []
        for row in rows:
            doomed = None
            try:
                doomed = self._workspaces.detach(row.uuid)
                if doomed is not None and not remove_if_small(doomed):
                    large.append(doomed)
            except OSError as error:
                # Its failure must not keep the others.
                logger.error("Files of payload %d cannot be removed: %s", row.id, error)
                if doomed is not None:
                    self.large.retry_later(doomed)
        return large
