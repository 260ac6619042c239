"""Removes folders that no payload has: of payloads that were given back, and of failed submits."""

import logging
from collections.abc import Container

from job_orchestrator.client.payloads.store import PayloadStore
from job_orchestrator.client.workspace.deferred_removal import DeferredRemoval
from job_orchestrator.client.workspace.layout import Workspaces
from job_orchestrator.common.runtime.loops import Loop
from job_orchestrator.common.runtime.threads import in_thread

logger = logging.getLogger(__name__)

INTERVAL_S = 60.0


class OrphanedFolders:
    """Removes the folders of forgotten payloads, also if the disk did not allow it earlier.

    ``arriving`` has the names of folders whose payloads are not complete yet. ``removal`` removes
    the folders in the background.
    """

    def __init__(
        self,
        store: PayloadStore,
        workspaces: Workspaces,
        arriving: Container[str],
        removal: DeferredRemoval,
    ) -> None:
        self._store = store
        self._workspaces = workspaces
        self._arriving = arriving
        self._removal = removal
        self.loop = Loop("orphaned folders", self.run_pass, interval_s=INTERVAL_S)

    async def run_pass(self) -> None:
        """Begin the removal of all folders that no payload has."""
        found = await in_thread(self._workspaces.names)
        kept = {row.uuid for row in await self._store.kept()}
        for name in found:
            # In this order: a payload is added before its folder stops arriving.
            if name in kept or name in self._arriving or await self._store.has_files(name):
                continue
            try:
                detached = await in_thread(self._workspaces.detach, name)
            except OSError as error:
                logger.warning("The folder %s can't be removed yet: %s", name, error)
                continue
            if detached is not None:
                self._removal.add(detached)
                self._removal.loop.wake()
