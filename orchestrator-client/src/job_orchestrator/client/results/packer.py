"""Packs the results of a payload into a ZIP.

Every regular file below the work folder goes in under its relative name, dot files too; next to
them ``.orchestrator/`` with the script's output and ``result.json``. Files that can't be packed are
skipped and listed there; a script can't make packing fail or hang.
"""

import asyncio
import contextlib
import errno
import io
import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO
from uuid import uuid4

from job_orchestrator.client.errors import (
    ArchiveFailed,
    DiskFails,
    FolderGone,
    OnlyOutputKept,
    PackingGivenUp,
)
from job_orchestrator.client.executors.base import Outcome
from job_orchestrator.client.results.archive import ResultArchive
from job_orchestrator.client.results.deflate import ParallelDeflater
from job_orchestrator.client.results.kept import KeptResults
from job_orchestrator.client.results.queue import (
    Budget,
    BudgetExceeded,
    MemoryBudget,
    PackingLimits,
    PackingQueue,
)
from job_orchestrator.client.results.threads import Progress
from job_orchestrator.client.results.zip_writer import ZipWriter
from job_orchestrator.client.workspace.layout import Workspace
from job_orchestrator.client.workspace.mounts import MountTable
from job_orchestrator.client.workspace.ownership import close_to_other_users
from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.runtime.short_work import ShortWork
from job_orchestrator.common.storage.durable import full_disk_as_domain_error
from job_orchestrator.common.storage.regular_file import create_file, opened_folder, rename_file
from job_orchestrator.common.storage.small_file import MAX_BYTES

MAX_SMALL_PERMITS, LARGE_PERMITS = 12, 4
"""Results that are packed concurrently; of partial results half as many, at least one.

Bounded, because other work needs threads too. More large ones than there may be CPUs: together
they take about as long as one after the other, and a short one need not wait for a long one.
"""

IN_MEMORY = PackingLimits(small_bytes=128 << 10, small_entries=32)
"""Limits of results that are packed in the event loop: about a millisecond of work."""

_mounts = MountTable()

_FAULTS_OF_THE_MACHINE = frozenset(
    {errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
)

TEMPORARY = ".results."
"""Prefix of the names of unfinished archives."""


def disk_bytes_of(file: IO[bytes]) -> int:
    """Return the size of the file system that holds ``file``; 0 if it is unknown."""
    status = os.fstatvfs(file.fileno())
    return status.f_blocks * status.f_frsize


class Packer:
    """Packs in threads: as many small results concurrently as there are CPUs, and some large ones.

    Partial results, which users request, have permits of their own: no number of requests delays
    the end of a payload. Of results larger than ``max_bytes`` (0: of any size) only the script's
    output is kept.

    Results of a few small files are packed in the event loop, into ``kept``, without a file.
    """

    def __init__(
        self,
        max_bytes: int = 0,
        limits: PackingLimits | None = None,
        disk_bytes: Callable[[IO[bytes]], int] = disk_bytes_of,
        kept: KeptResults | None = None,
    ) -> None:
        self._max_bytes = max_bytes
        self._disk_bytes = disk_bytes
        limits = limits or PackingLimits()
        small = min(os.cpu_count() or 1, MAX_SMALL_PERMITS)
        self._queue = PackingQueue(small, LARGE_PERMITS, limits)
        self._partial_queue = PackingQueue(max(1, small // 2), max(1, LARGE_PERMITS // 2), limits)
        self._deflater = ParallelDeflater()
        self._stopping = threading.Event()
        self._kept = kept
        self._short = ShortWork()

    async def pack(
        self, workspace: Workspace, outcome: Outcome, output_only: asyncio.Event | None = None
    ) -> bytes:
        """Write the results of an ended payload to memory or its workspace, complete or not at all.

        Returns the SHA-256 digest of the archive, which is computed while it is written.
        Once ``output_only`` is set, only the script's output is written, without waiting for a
        permit. The same happens if packing takes longer than the script did, which has held a slot
        for as long. Raises ``StorageFull``, ``ArchiveFailed``, and its subclass ``OnlyOutputKept``.
        """
        output_only = output_only or asyncio.Event()

        def check_wanted() -> None:
            self._check_not_stopping()
            if output_only.is_set():  # the one method that other threads may call
                raise PackingGivenUp("only the output of run.sh was kept")

        if self._kept is not None:
            budget = MemoryBudget(check_wanted, Progress(), IN_MEMORY)
            with contextlib.suppress(BudgetExceeded):
                sha256, incomplete, content = await self._short.run(
                    self._pack_to_memory, workspace, outcome, budget
                )
                if self._kept.keep(workspace.root.name, content):
                    return _digest_of(sha256, incomplete)
        return await self._queue.run(
            partial(self._pack_to_workspace, workspace, outcome),
            check_wanted,
            stop_waiting=output_only,
            script_time_s=outcome.ended_at - outcome.started_at,
        )

    async def pack_partial(self, workspace: Workspace) -> tuple[IO[bytes], bytes]:
        """Pack the present files of a payload into a file without a name.

        Returns the file and its SHA-256 digest. On any error nothing is left behind. Raises
        ``StorageFull``, ``ArchiveFailed``.
        """
        return await self._partial_queue.run(
            partial(self._pack_to_unnamed_file, workspace),
            self._check_not_stopping,
            stop_waiting=asyncio.Event(),
        )

    @property
    def problem(self) -> str:
        """Reason why no results can be packed any more; empty if they can."""
        return self._queue.problem or self._partial_queue.problem

    def stop(self) -> None:
        """Make all packing fail: the client stops, and nobody will fetch the results."""
        self._stopping.set()

    def _check_not_stopping(self) -> None:
        if self._stopping.is_set():
            raise ArchiveFailed("The client stops")

    def _pack_to_memory(
        self, workspace: Workspace, outcome: Outcome, budget: Budget
    ) -> tuple[bytes, OnlyOutputKept | None, bytes]:
        """Pack results that are small and cannot hold up the event loop.

        Returns the digest, the reason if only the output was kept, and the archive. Raises
        ``BudgetExceeded`` for other results.
        """
        _refuse_what_may_hang(workspace)
        with _as_domain_errors(), io.BytesIO() as file, _open_root(workspace) as folder:
            sha256, incomplete = self._write_archive(file, workspace, folder, outcome, budget)
            reach(Point.CLIENT_PACKING)
            if file.tell() > MAX_BYTES:  # larger ones are served in ranges, from a file
                raise BudgetExceeded
            close_to_other_users(folder)
            return sha256, incomplete, file.getvalue()

    def _pack_to_workspace(self, workspace: Workspace, outcome: Outcome, budget: Budget) -> bytes:
        with _as_domain_errors(), _open_root(workspace) as folder:
            with _temporary_file(folder) as (file, temporary):
                sha256, incomplete = self._write_archive(file, workspace, folder, outcome, budget)
                # A full file system shows when the file is written or closed. Nothing is flushed:
                # after a power cut the client does not know the payload any more.
                file.close()
                reach(Point.CLIENT_PACKING)
                budget.progress.note()
                rename_file(temporary, workspace.results.name, folder)
            close_to_other_users(folder)
        return _digest_of(sha256, incomplete)

    def _pack_to_unnamed_file(
        self, workspace: Workspace, budget: Budget
    ) -> tuple[IO[bytes], bytes]:
        with _as_domain_errors(), _open_root(workspace) as folder:
            file = tempfile.TemporaryFile(dir=f"/proc/self/fd/{folder}")  # noqa: SIM115 (the caller closes it)
            try:
                sha256, _ = self._write_archive(file, workspace, folder, None, budget)
                file.seek(0)
            except BaseException:
                file.close()
                raise
        return file, sha256

    def _write_archive(
        self,
        file: IO[bytes],
        workspace: Workspace,
        folder: int,
        outcome: Outcome | None,
        budget: Budget,
    ) -> tuple[bytes, OnlyOutputKept | None]:
        """Write all results, or only the script's output.

        ``folder`` is the open folder of the workspace. Returns the digest of the archive, and in
        the second case the reason.
        """
        root = Path(os.readlink(f"/proc/self/fd/{folder}"))  # noqa: PTH115
        try:
            return self._new_archive(file, budget).write(workspace, root, outcome), None
        except OnlyOutputKept as error:
            file.seek(0)
            file.truncate()
            archive = self._new_archive(file, Budget(self._check_not_stopping, budget.progress))
            return archive.write_output_only(workspace, root, outcome, error), error

    def _new_archive(self, file: IO[bytes], budget: Budget) -> ResultArchive:
        # Those in memory are within a budget that is much less than any disk.
        disk_bytes = 0 if isinstance(file, io.BytesIO) else self._disk_bytes(file)
        return ResultArchive(ZipWriter(file, self._deflater), budget, self._max_bytes, disk_bytes)


def _digest_of(sha256: bytes, incomplete: OnlyOutputKept | None) -> bytes:
    """Return the digest of an archive. Raises ``incomplete``, with the digest, if there is one."""
    if incomplete is not None:
        incomplete.sha256 = sha256
        raise incomplete
    return sha256


@contextlib.contextmanager
def _open_root(workspace: Workspace) -> Iterator[int]:
    """Open the folder of a payload; a script may have moved it. Raises ``FolderGone``."""
    try:
        root = os.stat(workspace.root, follow_symlinks=False)  # noqa: PTH116
    except FileNotFoundError:
        root = None
    if root is None or not stat.S_ISDIR(root.st_mode):
        raise FolderGone(
            "The results could not be packed: its folder was moved or replaced while run.sh ran"
        )
    with opened_folder(workspace.root) as folder:
        yield folder


def _refuse_what_may_hang(workspace: Workspace) -> None:
    """Raise ``BudgetExceeded`` if a script has left a mount or a link at one of the known places.

    A file system that the script mounted, or to which a link leads, can block for ever. Neither are
    patterns matched here: their number of steps is bounded, but not small.
    """
    if os.path.lexists(workspace.selection):
        raise BudgetExceeded
    paths = (workspace.work, workspace.stdout, workspace.stderr)
    if _mounts.names(workspace.root.name) or any(map(os.path.islink, paths)):
        raise BudgetExceeded


@contextlib.contextmanager
def _temporary_file(folder: int) -> Iterator[tuple[IO[bytes], str]]:
    """Create a file whose name no script can foresee; it is removed unless it was renamed."""
    name = f"{TEMPORARY}{uuid4().hex}"
    try:
        with open(create_file(name, folder), "wb") as file:  # noqa: PTH123
            yield file, name
    finally:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=folder)


@contextlib.contextmanager
def _as_domain_errors() -> Iterator[None]:
    try:
        with full_disk_as_domain_error():
            yield
    except OSError as error:
        kind = DiskFails if error.errno in _FAULTS_OF_THE_MACHINE else ArchiveFailed
        raise kind(f"The results could not be packed: {error}") from error
