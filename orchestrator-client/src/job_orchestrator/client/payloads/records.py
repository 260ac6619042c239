"""Records of payloads on the disk, for payloads whose runs survive a restart of jo-client.

Each is a small file in the workspace of its payload, so it is removed with it. A database would
need locks, which file systems of clusters do not guarantee. All methods block: call them in a
thread.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from job_orchestrator.client.model import PayloadRow
from job_orchestrator.client.workspace.layout import Workspaces
from job_orchestrator.common.status import PayloadStatus
from job_orchestrator.common.storage.durable import (
    fsync_path,
    fsync_tree,
    full_disk_as_domain_error,
    write_durably,
)
from job_orchestrator.common.storage.regular_file import open_regular_file

logger = logging.getLogger(__name__)

RECORD = "payload.json"
MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class PayloadRecords:
    """Records of the payloads in ``workspaces``."""

    workspaces: Workspaces

    def accept(self, row: PayloadRow) -> None:
        """Flush the files of a payload that has arrived, and record it. Raises ``StorageFull``.

        After a power cut, a record without its files would run an incomplete payload.
        """
        with full_disk_as_domain_error():
            fsync_tree(self.workspaces.of(row.uuid).root)
            self._write(row)
            fsync_path(self.workspaces.root)

    def update(self, row: PayloadRow) -> None:
        """Record a change of a payload. One that has ended has its results on the disk.

        Raises ``OSError``.
        """
        results = self.workspaces.of(row.uuid).results
        if row.results_sha256 is not None and results.exists():
            fsync_path(results)
        self._write(row)

    def remove(self, uuid: str) -> None:
        """Remove a record, so that its payload is not known after a restart."""
        root = self.workspaces.of(uuid).root
        try:
            (root / RECORD).unlink()
            fsync_path(root)
        except FileNotFoundError:
            pass

    def load(self) -> Sequence[PayloadRow]:
        """Return the payloads that a previous process of jo-client has recorded."""
        found = []
        for name in self.workspaces.names():
            row = self._read(name)
            if row is not None and row.uuid == name and row.status is not PayloadStatus.CLEANED:
                found.append(row)
        return sorted(found, key=lambda row: row.id)

    def _write(self, row: PayloadRow) -> None:
        content = msgspec.json.encode(row)
        write_durably(self.workspaces.of(row.uuid).root / RECORD, content, mode=0o600)

    def _read(self, name: str) -> PayloadRow | None:
        path = self.workspaces.of(name).root / RECORD
        try:
            with open(open_regular_file(path), "rb") as file:  # noqa: PTH123
                return msgspec.json.decode(file.read(MAX_BYTES), type=PayloadRow)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            logger.warning("Payload %s is dropped: its record can't be read: %s", name, error)
            return None
