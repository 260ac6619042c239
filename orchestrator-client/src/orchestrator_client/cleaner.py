"""Removes the files of payloads that ended long ago."""

import logging

from orchestrator_client.payloads import PayloadRow, PayloadStore
from orchestrator_client.workspace import Workspaces
from orchestrator_common.status import PayloadStatus, TransitionRefused
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
            for row in rows:
                try:
                    await self.clean(row)
                except OSError as error:
                    # It goes at the next start; the others can go now.
                    logger.error("Files of payload %d can't be removed: %s", row.id, error)
        await self._store.forget_cleaned(ROWS_KEPT_S)

    async def clean(self, row: PayloadRow) -> None:
        """Remove the files of a payload that has ended. Raises ``TransitionRefused`` otherwise."""
        try:
            await self._store.finish(row.id, PayloadStatus.CLEANED, row.message)
        except TransitionRefused as refused:
            if refused.current is not PayloadStatus.CLEANED:
                raise
        await in_thread(self._workspaces.remove, row.uuid)
