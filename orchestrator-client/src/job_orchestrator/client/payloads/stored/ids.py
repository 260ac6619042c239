"""Ids of payloads: 32 bits, never reused, not even after a restart.

The database is in memory, so a small file holds the next id. Ids are reserved in blocks; those of a
block that a crash left unused are skipped. Counting never starts below the current time in seconds
since the epoch. So ids are not reused either if the file is lost (a new disk) or old (a restored
backup): an earlier count is ahead of the clock only if the client accepted more than one payload a
second on average. The server's idempotency key covers the remaining risk.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from job_orchestrator.client.errors import IdsExhausted
from job_orchestrator.common.storage.durable import full_disk_as_domain_error, write_durably
from job_orchestrator.common.storage.regular_file import make_way, open_regular_file, opened_folder

BLOCK = 1000
_MAX_ID = 2**32 - 1
_MAX_DIGITS = 20


@dataclass
class PayloadIds:
    """Source of payload ids. Thread-safe."""

    file: Path
    now: Callable[[], float] = time.time
    _next: int = field(default=0, init=False)
    _reserved_up_to: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    @property
    def are_reserved(self) -> bool:
        """True if the next ``take`` need not write to the disk, unless threads take ids, too."""
        return self._next < self._reserved_up_to

    def take(self) -> int:
        """Return an id that was never returned before. May write to the disk: call it in a thread.

        Raises ``IdsExhausted``, ``StorageFull``.
        """
        with self._lock:
            if self._next >= self._reserved_up_to:
                self._reserve()
            self._next += 1
            return self._next - 1

    def _reserve(self) -> None:
        try:
            with open(open_regular_file(self.file), "rb") as file:  # noqa: PTH123
                stored = int(file.read(_MAX_DIGITS))
        except (FileNotFoundError, ValueError):
            stored = 0
        # Only the first block of a process begins at the clock: later, that would waste ids.
        begin = max(stored, self._reserved_up_to or int(self.now()))
        if begin + BLOCK > _MAX_ID:
            raise IdsExhausted(f"All ids up to {_MAX_ID} were used; remove {self.file}")
        with full_disk_as_domain_error():
            if stored == 0:
                # A script with the rights of the client may have put a folder here.
                with opened_folder(self.file.parent) as folder:
                    make_way(self.file.name, folder)
            write_durably(self.file, str(begin + BLOCK).encode())
        self._next, self._reserved_up_to = begin, begin + BLOCK
