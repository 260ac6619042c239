"""The content of a result ZIP: what goes in, under which name, and within which bounds."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from job_orchestrator.client.errors import OnlyOutputKept, ResultTooLarge
from job_orchestrator.client.executors.base import Outcome
from job_orchestrator.client.results.deflate import BLOCK_BYTES
from job_orchestrator.client.results.manifest import SkippedFiles, encode_manifest
from job_orchestrator.client.results.queue import Budget
from job_orchestrator.client.results.selection import SelectedFiles, load_selection
from job_orchestrator.client.results.walk import (
    OUT_OF_RESOURCES,
    NotRegular,
    open_regular,
    read_blocks,
    walk,
)
from job_orchestrator.client.results.zip_writer import Member, ZipWriter
from job_orchestrator.client.workspace.layout import Workspace
from job_orchestrator.client.workspace.ownership import impersonate_owner
from job_orchestrator.common.config.units import size_text
from job_orchestrator.common.protocol.paths import RESERVED

MAX_KEPT_OUTPUT_BYTES = 1 << 30
"""Of each output stream of a script, if only these are kept and results may have any size."""

_MANIFEST_MODE = 0o600


class ResultArchive:
    """One archive of results under construction.

    ``max_bytes`` bounds the archive, ``max_unpacked_bytes`` the files in it; 0: unlimited.
    """

    def __init__(
        self, writer: ZipWriter, budget: Budget, max_bytes: int, max_unpacked_bytes: int
    ) -> None:
        self._writer = writer
        self._budget = budget
        self._max_bytes = max_bytes
        self._max_unpacked_bytes = max_unpacked_bytes
        self._unpacked_bytes = 0
        self._skipped = SkippedFiles()
        self._selected = SelectedFiles()

    def write(self, workspace: Workspace, root: Path, outcome: Outcome | None) -> bytes:
        """Write the selected files, the script's output and the manifest.

        ``root`` is the real path of the workspace. Returns the SHA-256 digest of the archive.
        Raises ``OnlyOutputKept`` and the errors of the budget.
        """
        work = root / workspace.work.name  # not resolved: it may have become a link
        self._selected = load_selection(workspace)
        with impersonate_owner(work):
            for entry in walk(work, self._skipped.add, self._budget.count_entry):
                if not self._selected.leaves_out_name(entry.name):
                    self._add(entry.path, entry.name, inside=work)
        self._add_output(workspace, root, limit=None)
        return self._finish(outcome)

    def write_output_only(
        self, workspace: Workspace, root: Path, outcome: Outcome | None, reason: OnlyOutputKept
    ) -> bytes:
        """Write the script's output and the manifest, which holds the reason.

        ``root`` is the real path of the workspace. Returns the SHA-256 digest of the archive.
        """
        self._skipped.add(".", str(reason))
        # Both streams together fit into the largest archive.
        limit = self._max_bytes // 2 or MAX_KEPT_OUTPUT_BYTES
        self._add_output(workspace, root, limit)
        return self._finish(outcome)

    def _add_output(self, workspace: Workspace, root: Path, limit: int | None) -> None:
        for path in (workspace.stdout, workspace.stderr):
            if path.exists():
                name = f"{RESERVED}/{path.name}"
                self._add(str(path), name, inside=root, limit=limit)

    def _finish(self, outcome: Outcome | None) -> bytes:
        manifest = Member(f"{RESERVED}/result.json", _MANIFEST_MODE, time.time())
        self._writer.write(
            manifest, encode_manifest(outcome, self._skipped, self._selected.left_out)
        )
        self._writer.close()
        return self._writer.sha256

    def _add(self, path: str, name: str, *, inside: Path, limit: int | None = None) -> None:
        """Add an empty folder, a file, or the file ``inside`` that a link leads to.

        ``limit``: at most so many bytes of the file; None: all of it, within the archive's bounds.
        """
        self._budget.check()
        try:
            name.encode()
        except UnicodeEncodeError:
            self._skipped.add(name, "its name is not UTF-8")
            return
        try:
            if name.endswith("/"):
                status = os.stat(path)  # noqa: PTH116 (a string: there may be thousands)
                self._writer.write(Member(name, status.st_mode, status.st_mtime), b"")
                self._check_size()
                return
            descriptor = open_regular(path, inside, self._budget.count_link)
        except NotRegular as reason:
            self._skipped.add(name, str(reason))
            return
        except OSError as error:
            if error.errno in OUT_OF_RESOURCES:
                raise
            self._skipped.add(name, error.strerror or "unreadable")
            return
        # Not a file object: it costs as much as a small file, which is read in one call.
        try:
            self._add_file(descriptor, name, limit)
        finally:
            os.close(descriptor)

    def _add_file(self, source: int, name: str, limit: int | None) -> None:
        status = os.fstat(source)
        # The size at the beginning: a file that is being written may grow faster than it is read.
        size = status.st_size
        if limit is not None and size > limit:
            self._skipped.add(name, f"cut off after {limit} bytes")
            size = limit
        if limit is None:
            if self._selected.may_be_unchanged(name) and self._is_unchanged(source, name, size):
                return
            self._check_unpacked_size(size)
        member = Member(name, status.st_mode, status.st_mtime)
        blocks = self._blocks(source, name, size)
        if size <= BLOCK_BYTES:
            self._writer.write(member, b"".join(blocks))
        elif limit is None:
            self._writer.write_blocks(member, blocks, size, after_part=self._check_size)
        else:
            self._writer.write_blocks(member, blocks, size)
        if limit is None:
            self._check_size()

    def _is_unchanged(self, source: int, name: str, size: int) -> bool:
        """Compare a file with the uploaded one. Its bytes count as those of packed files do."""
        self._budget.count_bytes(size)
        return self._selected.leaves_out_content(name, self._blocks(source, name, size))

    def _blocks(self, source: int, name: str, size: int) -> Iterator[bytes]:
        """Yield at most ``size`` bytes of a file; fewer if it can't be read to its end."""
        try:
            for block in read_blocks(source, size):
                self._budget.check()
                yield block
        except OSError as error:
            self._skipped.add(name, f"cut off: {error.strerror}")

    def _check_size(self) -> None:
        if self._max_bytes and self._writer.size > self._max_bytes:
            raise ResultTooLarge(
                f"The results are larger than {size_text(self._max_bytes)} (MAX_RESULT_SIZE);"
                " only the output of run.sh was kept"
            )

    def _check_unpacked_size(self, size: int) -> None:
        """Count a file before it is packed: links take no space on disk, but days to pack."""
        self._budget.count_bytes(size)
        self._unpacked_bytes += size
        if self._max_unpacked_bytes and self._unpacked_bytes > self._max_unpacked_bytes:
            raise ResultTooLarge(
                "The results, with what their links and sparse files stand for, are larger than the"
                " client's disk; only the output of run.sh was kept"
            )
