"""Ids of payloads: 32 bits, never reused, also not after a restart.

The database is in memory, so the next id is kept in a small file, a block ahead: ids of a block
that a crash left unused are skipped. Counting never starts below the present time in seconds, so
that ids aren't reused either where that file is lost (a fresh disk) or old (a restored backup): an
earlier count can only have passed it by more than a payload a second on average. The server's
idempotency key settles what is left of the risk.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from job_orchestrator.client.errors import IdsExhausted
from job_orchestrator.common.storage.durable import full_disk_as_domain_error, write_durably

BLOCK = 1000
_MAX_ID = 2**32 - 1


@dataclass
class PayloadIds:
    """The source of ids. ``take`` blocks now and then: call it in a thread; in any."""

    file: Path
    now: Callable[[], float] = time.time
    _next: int = field(default=0, init=False)
    _reserved_up_to: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def take(self) -> int:
        """Return an id that was never returned before. Raises ``IdsExhausted``, ``StorageFull``."""
        with self._lock:
            if self._next >= self._reserved_up_to:
                self._reserve()
            self._next += 1
            return self._next - 1

    def _reserve(self) -> None:
        try:
            noted = int(self.file.read_text())
        except (FileNotFoundError, ValueError):
            noted = 0
        # Within one life the clock has no say: it would tear holes into the blocks.
        begin = max(noted, self._reserved_up_to or int(self.now()))
        if begin + BLOCK > _MAX_ID:
            raise IdsExhausted(f"All ids up to {_MAX_ID} were used; remove {self.file}")
        with full_disk_as_domain_error():
            write_durably(self.file, str(begin + BLOCK).encode())
        self._next, self._reserved_up_to = begin, begin + BLOCK
