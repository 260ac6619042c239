"""What a payload's script says, while it runs and afterwards."""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

from job_orchestrator.client.errors import ResultsGone
from job_orchestrator.client.model import PayloadRow
from job_orchestrator.client.payloads.store import PayloadStore, has_ended
from job_orchestrator.client.workspace.layout import Workspaces
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.status import PayloadStatus

LOOK_S = 0.25
"""Between two looks whether a file has grown; the kernel tells nobody without more machinery."""

BLOCK_BYTES = 1 << 18


class ScriptOutput:
    """Reads it. A listener of the store: the end of a payload ends what follows its output."""

    def __init__(self, store: PayloadStore, workspaces: Workspaces) -> None:
        self._store = store
        self._workspaces = workspaces
        self._followed: dict[int, set[asyncio.Event]] = {}
        self._closed = False

    def note(self, row: PayloadRow) -> None:
        """A payload has changed."""
        if has_ended(row):
            for ended in self._followed.get(row.id, ()):
                ended.set()

    def close(self) -> None:
        """End all that follows: the client stops."""
        self._closed = True
        for followers in self._followed.values():
            for ended in followers:
                ended.set()

    async def read(
        self, payload_id: int, stream: str, offset: int, *, follow: bool
    ) -> AsyncGenerator[bytes, None]:
        """The bytes of ``stream`` from ``offset`` on.

        With ``follow`` until the payload has ended; what it said last is part of it. Raises
        ``PayloadNotFound``, ``ResultsGone``.
        """
        with self._following(payload_id) as ended:
            row = await self._store.get(payload_id)
            if row.status is PayloadStatus.CLEANED:
                raise ResultsGone(f"The files of payload {row.id} were removed")
            if has_ended(row) or self._closed:
                ended.set()
            workspace = self._workspaces.of(row.uuid)
            path = workspace.stdout if stream == "stdout" else workspace.stderr
            yield b""  # it is there
            while True:
                # Asked before the file is read: what was said before the end is read after it.
                last = ended.is_set() or not follow
                while block := await in_thread(_read, path, offset):
                    offset += len(block)
                    yield block
                if last:
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
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
    """The next block; nothing if there is none (yet), or no file (yet, or any more)."""
    try:
        with path.open("rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size <= offset:
                return b""  # no file system takes any offset to seek to
            file.seek(offset)
            return file.read(BLOCK_BYTES) or b""
    except FileNotFoundError:
        return b""
