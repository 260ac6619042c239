"""Removes the files of payloads that ended long ago."""

import logging
from collections.abc import Sequence

from orchestrator_client.payloads import PayloadRow, PayloadStore
from orchestrator_client.workspace import Workspaces
from orchestrator_common.faults import Point, reach
from orchestrator_common.threads import in_thread

logger = logging.getLogger(__name__)

BATCH = 200
ROWS_KEPT_S = 3600.0
"""How long after its end a payload whose files are gone is remembered: a late repeat of its submit
finds it."""


class Cleaner:
    """The cleaner's pass. ``max_age_s`` counts from a payload's end."""

    def __init__(self, store: PayloadStore, workspaces: Workspaces, *, max_age_s: float) -> None:
        self._store = store
        self._workspaces = workspaces
        self._max_age_s = max_age_s

    async def run_pass(self) -> None:
        """Clean what is due, and forget what was cleaned long ago."""
        while len(rows := await self._store.ended_before(self._max_age_s, BATCH)) > 0:
            await self.clean([row.id for row in rows])
        await self._store.forget_cleaned(ROWS_KEPT_S)

    async def clean(self, payload_ids: Sequence[int]) -> list[int]:
        """Remove the files of those of the payloads that have ended; return their ids."""
        rows = await self._store.discard(payload_ids)
        reach(Point.CLIENT_DISCARDED)
        await in_thread(self._remove, rows)
        return [row.id for row in rows]

    def _remove(self, rows: Sequence[PayloadRow]) -> None:
        for row in rows:
            try:
                self._workspaces.remove(row.uuid)
            except OSError as error:
                # It goes at the next start; the others can go now.
                logger.error("Files of payload %d can't be removed: %s", row.id, error)
