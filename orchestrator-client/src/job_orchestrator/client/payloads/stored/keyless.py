"""Payloads that were submitted without a key: their servers ask for them by the id alone.

A server that sends no ``Idempotency-Key``, such as that of the original, does not run a job again:
it asks until it is answered how the payload ended. So payloads that a restart has lost are Failed
for such a server, and their ids survive the restart in a small file.
"""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from job_orchestrator.common.storage.durable import full_disk_as_domain_error, write_durably
from job_orchestrator.common.storage.regular_file import make_way, open_regular_file, opened_folder

MAX_IDS = 1000
"""Ids that are kept, the last ones."""

_MAX_DIGITS = 10
_MAX_BYTES = (_MAX_DIGITS + 1) * MAX_IDS


@dataclass
class KeylessPayloads:
    """Ids of the payloads without a key, in ``file``. Thread-safe."""

    file: Path
    _ids: "deque[int]" = field(default_factory=lambda: deque(maxlen=MAX_IDS), init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def load(self) -> Sequence[int]:
        """Read the ids that earlier processes have kept, and return them. Call it once, first."""
        try:
            with open(open_regular_file(self.file), "rb") as file:  # noqa: PTH123
                words = file.read(_MAX_BYTES).split()
        except (FileNotFoundError, ValueError):
            words = []
            # A script with the rights of the client may have put a folder here.
            with opened_folder(self.file.parent) as folder:
                make_way(self.file.name, folder)
        self._ids.extend(int(word) for word in words if word.isdigit() and len(word) <= _MAX_DIGITS)
        return list(self._ids)

    def add(self, payload_id: int) -> None:
        """Keep an id durably. Blocks: call it in a thread. Raises ``StorageFull``."""
        with self._lock:
            self._ids.append(payload_id)
            with full_disk_as_domain_error():
                write_durably(self.file, " ".join(map(str, self._ids)).encode())
