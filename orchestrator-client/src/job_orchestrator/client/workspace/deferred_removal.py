"""Folders that are too large to be removed while somebody waits for it."""

import logging
import threading
from collections import deque
from pathlib import Path

from job_orchestrator.client.workspace.removal import remove_tree
from job_orchestrator.common.runtime.loops import Loop
from job_orchestrator.common.runtime.threads import in_thread

logger = logging.getLogger(__name__)

SMALL_ENTRIES = 1000
"""Files and folders that are removed at once."""

INTERVAL_S = 5.0


class _Interrupted(Exception):
    """A removal is left unfinished."""


def remove_if_small(folder: Path) -> bool:
    """Remove a folder; False if it is large, and some of it is left. Raises ``OSError``."""
    found = 0

    def count() -> None:
        nonlocal found
        found += 1
        if found > SMALL_ENTRIES:
            raise _Interrupted

    try:
        remove_tree(folder, find=count)
    except _Interrupted:
        return False
    return True


class DeferredRemoval:
    """Removes them one by one, in a loop of its own."""

    def __init__(self, name: str) -> None:
        self._left: deque[Path] = deque()
        self._stopping = threading.Event()
        self.loop = Loop(name, self.run_pass, interval_s=INTERVAL_S)

    def add(self, folder: Path) -> None:
        """Let a folder be removed. From any thread; ``loop`` may be woken for it."""
        self._left.append(folder)

    async def run_pass(self) -> None:
        """Remove what is left, one after the other."""
        while self._left and not self._stopping.is_set():
            await in_thread(self._remove, self._left.popleft())

    def stop(self) -> None:
        """Leave what there is to the next start: the client stops."""
        self._stopping.set()

    def _remove(self, folder: Path) -> None:
        def go_on() -> None:
            if self._stopping.is_set():
                raise _Interrupted

        try:
            remove_tree(folder, find=go_on)
        except _Interrupted:
            logger.info("%s is left to the next start", folder)
        except OSError as error:
            logger.error("Files in %s can't be removed: %s", folder, error)
