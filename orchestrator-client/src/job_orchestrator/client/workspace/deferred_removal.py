"""Removal of large folders in the background, so that nobody waits for it."""

import logging
import threading
import time
from collections import deque
from pathlib import Path

from job_orchestrator.client.workspace.removal import remove_tree
from job_orchestrator.common.runtime.loops import Loop
from job_orchestrator.common.runtime.threads import in_thread

logger = logging.getLogger(__name__)

SMALL_ENTRIES = 1000
"""Files and folders that a caller removes itself, without deferring."""

INTERVAL_S = 5.0
RETRY_S = 3600.0
"""Time until another try for a folder that can't be removed."""


class _Interrupted(Exception):
    """The removal of a folder was stopped before its end."""


def remove_if_small(folder: Path, max_entries: int | None = None) -> bool:
    """Remove a folder; return False if it is large, and part of it is left.

    Blocks: call it in a thread. Raises ``OSError``.
    """
    limit = SMALL_ENTRIES if max_entries is None else max_entries
    found = 0

    def count() -> None:
        nonlocal found
        found += 1
        if found > limit:
            raise _Interrupted

    try:
        remove_tree(folder, on_entry=count)
    except _Interrupted:
        return False
    return True


class DeferredRemoval:
    """Removes large folders one by one, in a background loop."""

    def __init__(self, name: str) -> None:
        self._folders: deque[Path] = deque()
        self._failed: deque[tuple[float, Path]] = deque()
        self._stopping = threading.Event()
        self.loop = Loop(name, self.run_pass, interval_s=INTERVAL_S)

    def add(self, folder: Path) -> None:
        """Schedule the removal of a folder. Thread-safe; ``loop`` may be woken afterwards."""
        self._folders.append(folder)

    def retry_later(self, folder: Path) -> None:
        """Schedule another try for a folder that can't be removed now. Thread-safe."""
        self._failed.append((time.monotonic() + RETRY_S, folder))

    async def run_pass(self) -> None:
        """Remove all scheduled folders, one after the other."""
        now = time.monotonic()
        while self._failed and self._failed[0][0] <= now:
            self._folders.append(self._failed.popleft()[1])
        while self._folders and not self._stopping.is_set():
            await in_thread(self._remove, self._folders.popleft())

    def stop(self) -> None:
        """Interrupt the removal. The remaining folders are removed at the next start."""
        self._stopping.set()

    def _remove(self, folder: Path) -> None:
        def check_not_stopping() -> None:
            if self._stopping.is_set():
                raise _Interrupted

        try:
            remove_tree(folder, on_entry=check_not_stopping)
        except _Interrupted:
            logger.info("The removal of %s is continued at the next start", folder)
        except OSError as error:
            logger.error("Files in %s can't be removed: %s", folder, error)
            self.retry_later(folder)
