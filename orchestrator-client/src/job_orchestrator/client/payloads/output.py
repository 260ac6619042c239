"""Output of a payload's script, while it runs and afterwards."""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

from job_orchestrator.client.errors import ResultsGone
from job_orchestrator.client.model import PayloadRow
from job_orchestrator.client.payloads.store import PayloadStore
from job_orchestrator.client.workspace.layout import Workspaces
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.status import PayloadStatus
from job_orchestrator.common.storage.regular_file import open_regular_file

POLL_S = 0.25
"""Between two checks whether a file has grown. Polling needs less machinery than inotify(7)."""

BLOCK_BYTES = 1 << 18


class ScriptOutput:
    """Reads standard output and standard error of scripts."""

    def __init__(self, store: PayloadStore, workspaces: Workspaces) -> None:
        self._store = store
        self._workspaces = workspaces
        self._followed: dict[int, set[asyncio.Event]] = {}
        self._closed = False

    @property
    def followed_count(self) -> int:
        """Number of payloads whose output is being read."""
        return len(self._followed)

    def on_payload_changed(self, row: PayloadRow) -> None:
        """End the streams that follow the output of a payload that has ended.

        A subscriber of the store.
        """
        if row.status.has_ended:
            for ended in self._followed.get(row.id, ()):
                ended.set()

    def close(self) -> None:
        """End all streams that follow an output: the client stops."""
        self._closed = True
        for followers in self._followed.values():
            for ended in followers:
                ended.set()

    async def read(
        self, payload_id: int, stream: str, offset: int, *, follow: bool
    ) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of ``stream`` (stdout or stderr) from ``offset`` on.

        With ``follow``, goes on until the payload has ended, and includes its last output. The
        first block is empty: it shows that the payload exists. Raises ``PayloadNotFound``,
        ``ResultsGone``.
        """
        with self._following(payload_id) as ended:
            row = await self._store.get(payload_id)
            if row.status is PayloadStatus.CLEANED:
                raise ResultsGone(f"The files of payload {row.id} were removed")
            if row.status.has_ended or self._closed:
                ended.set()
            workspace = self._workspaces.of(row.uuid)
            path = workspace.stdout if stream == "stdout" else workspace.stderr
            yield b""
            while True:
                # Checked before the file is read, so that all output before the end is read.
                last = ended.is_set() or not follow
                while block := await in_thread(_read, path, offset):
                    offset += len(block)
                    yield block
                if last:
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await ended.wait()

    @contextlib.contextmanager
    def _following(self, payload_id: int) -> Iterator[asyncio.Event]:
        ended = asyncio.Event()
        followers = self._followed.setdefault(payload_id, set())
        followers.add(ended)
        try:
            yield ended
        finally:
            followers.discard(ended)
            if not followers:
                self._followed.pop(payload_id, None)


def _read(path: Path, offset: int) -> bytes:
    """Read the next block; empty if there is no more, or no file (yet, or any more)."""
    try:
        with open(open_regular_file(path), "rb", buffering=0) as file:  # noqa: PTH123
            if os.fstat(file.fileno()).st_size <= offset:
                return b""  # not all file systems accept a seek to any offset
            file.seek(offset)
            return file.read(BLOCK_BYTES) or b""
    except FileNotFoundError:
        return b""
