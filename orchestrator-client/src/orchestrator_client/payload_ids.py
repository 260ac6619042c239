"""Ids of payloads: 32 bits, never reused, also not after a restart.

The database is in memory, so the next id is kept in a small file, a block ahead: ids of a block
that a crash left unused are skipped. Where that file is lost too (a fresh disk), counting starts at
the present time in seconds, which an earlier count can only have passed by more than a payload a
second on average. The server's idempotency key settles what is left of the risk.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator_client.errors import IdsExhausted
from orchestrator_common.durable import write_durably

BLOCK = 1000
_MAX_ID = 2**32 - 1


@dataclass
class PayloadIds:
    """The source of ids. ``take`` blocks now and then: call it in a thread."""

    file: Path
    _next: int = field(default=0, init=False)
    _reserved_up_to: int = field(default=0, init=False)

    def take(self) -> int:
        """Return an id that was never returned before. Raises ``IdsExhausted``."""
        if self._next >= self._reserved_up_to:
            self._reserve()
        self._next += 1
        return self._next - 1

    def _reserve(self) -> None:
        try:
            begin = int(self.file.read_text())
        except (FileNotFoundError, ValueError):
            begin = int(time.time())
        if begin + BLOCK > _MAX_ID:
            raise IdsExhausted(f"All ids up to {_MAX_ID} were used; remove {self.file}")
        write_durably(self.file, str(begin + BLOCK).encode())
        self._next, self._reserved_up_to = begin, begin + BLOCK
