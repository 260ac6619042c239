"""Removes the files of payloads that ended long ago."""

import logging
from collections.abc import Sequence
from pathlib import Path

from job_orchestrator.client.model import PayloadRow
from job_orchestrator.client.payloads.store import PayloadStore
from job_orchestrator.client.workspace.deferred_removal import DeferredRemoval, remove_if_small
from job_orchestrator.client.workspace.layout import Workspaces
from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.runtime.loops import Loop
from job_orchestrator.common.runtime.threads import in_thread

logger = logging.getLogger(__name__)

BATCH = 200
INTERVAL_S = 60.0
ROWS_KEPT_S = 3600.0
"""How long after its end a payload whose files are gone is remembered: a late repeat of its submit
finds it."""


class Cleaner:
    """The cleaner's pass. ``max_age_s`` counts from a payload's end.

    Folders of very many files are removed beside it, in ``large``: who asks for the
    removal of small ones does not wait for them, in whatever company they are.
    """

    def __init__(self, store: PayloadStore, workspaces: Workspaces, *, max_age_s: float) -> None:
        self._store = store
        self._workspaces = workspaces
        self._max_age_s = max_age_s
        self.large = DeferredRemoval("large folders")
        self.loop = Loop("cleaner", self.run_pass, interval_s=INTERVAL_S)

    async def run_pass(self) -> None:
        """Clean what is due, and forget what was cleaned long ago."""
        while len(rows := await self._store.ended_before(self._max_age_s, BATCH)) > 0:
            await self.clean([row.id for row in rows])
        await self._store.forget_cleaned(ROWS_KEPT_S)

    async def clean(self, payload_ids: Sequence[int]) -> list[int]:
        """Remove the files of those of the payloads that have ended; return their ids.

        Of large ones the removal has only begun then; nobody finds their files any more.
        """
        rows = await self._store.discard(payload_ids)
        reach(Point.CLIENT_DISCARDED)
        large = await in_thread(self._remove, rows)
        for folder in large:
            self.large.add(folder)
            self.large.loop.wake()
        return [row.id for row in rows]

    def _remove(self, rows: Sequence[PayloadRow]) -> list[Path]:
        """Remove the folders of payloads, and return what is large and not removed."""
        large = []
        for row in rows:
            try:
                doomed = self._workspaces.detach(row.uuid)
                if doomed is not None and not remove_if_small(doomed):
                    large.append(doomed)
            except OSError as error:
                # It goes at the next start; the others can go now.
                logger.error("Files of payload %d can't be removed: %s", row.id, error)
        return large
