"""Files that a client gets with a job: its inputs, and the results of the jobs before it."""

import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from job_orchestrator.common.errors import DomainError
from job_orchestrator.common.protocol.multipart_writer import FormBody, FormFile
from job_orchestrator.common.protocol.small_files import (
    MAX_FILES,
    SmallFile,
    decode_files,
    encode_files,
)
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.status import JobStatus
from job_orchestrator.common.storage.durable import full_disk_as_domain_error
from job_orchestrator.server.clients.base import SmallInputs
from job_orchestrator.server.errors import NeededResultsUnusable
from job_orchestrator.server.files.unpacking import INPUTS, PackedFile, Room, packed_files
from job_orchestrator.server.jobs.stored_files import StoredFiles
from job_orchestrator.server.model import Job
from job_orchestrator.server.store.base import JobStore

MAX_UNPACKED_FILES = 10_000
"""Files of the results of other jobs that a job gets."""

MAX_TASKS = 1000
"""Tasks of an array whose results a job gets: each may be an open file while they are unpacked."""


@dataclass(frozen=True)
class JobInputs:
    """Collects the files of a job for its client.

    The results of the jobs that it waited for are unpacked into ``.inputs/<id>/``, those of arrays
    into ``.inputs/<id>/<index>/``, at most ``max_bytes`` in all. They are unpacked
    again for each attempt, and not kept.
    """

    store: JobStore
    stored: StoredFiles
    max_bytes: int

    @asynccontextmanager
    async def of(self, job: Job) -> AsyncIterator[FormBody | SmallInputs]:
        """Provide the files of a job, which may be sent several times.

        Raises ``NeededResultsUnusable``; ``FileNotFoundError`` if the inputs are gone;
        ``StorageFull`` if there is no room to unpack results.
        """
        inputs = await self.stored.inputs(job)
        if not (job.after_success or job.after_end):
            yield inputs
            return
        async with AsyncExitStack() as resources:
            room = Room(MAX_UNPACKED_FILES, self.max_bytes)
            packed: list[PackedFile] = []
            for on_id in sorted({*job.after_success, *job.after_end}):
                packed += await self._packed(job, on_id, room, resources)
            small = await self._as_small(inputs, packed)
            yield small or await self._as_form(inputs, packed, resources)

    async def _packed(
        self, job: Job, on_id: int, room: Room, resources: AsyncExitStack
    ) -> Sequence[PackedFile]:
        """List the results of a job, or of the tasks of an array, that ``job`` waited for."""
        before = await self.store.get(on_id)
        if before.array_id != on_id:
            return await self._packed_of(job, on_id, before, f"{INPUTS}/{on_id}", room, resources)
        array, packed = await self.store.arrays.get(on_id), list[PackedFile]()
        if array.size > MAX_TASKS:
            raise NeededResultsUnusable(
                on_id, f"it is an array of more than {MAX_TASKS} tasks, whose results are too many"
            )
        for task in await self.store.arrays.tasks(array, 0, array.size):
            folder = f"{INPUTS}/{on_id}/{task.array_index}"
            packed += await self._packed_of(job, on_id, task, folder, room, resources)
        return packed

    async def _packed_of(
        self,
        job: Job,
        on_id: int,
        before: Job,
        folder: str,
        room: Room,
        resources: AsyncExitStack,
    ) -> Sequence[PackedFile]:
        if not before.has_output or before.status is JobStatus.CLEANED:
            if on_id in job.after_success:
                raise NeededResultsUnusable(on_id, "they were removed after the retention time")
            return ()
        with _as_unusable(on_id):
            archive = await self.stored.open_result(before)
            resources.push_async_callback(in_thread, archive.close)
            return await in_thread(packed_files, archive, folder, room)

    async def _as_small(
        self, inputs: FormBody | SmallInputs, packed: Sequence[PackedFile]
    ) -> SmallInputs | None:
        """Return all files as one block; None if they are not small."""
        if isinstance(inputs, FormBody):
            return None
        own = decode_files(inputs.block)
        size = sum(len(file.content) for file in own) + sum(file.entry.size for file in packed)
        if size > self.stored.inline_bytes or len(own) + len(packed) > MAX_FILES:
            return None

        def unpack() -> list[SmallFile]:
            return [SmallFile(file.path, _content(file)) for file in packed]

        return SmallInputs(encode_files([*own, *await in_thread(unpack)]), inputs.fields)

    async def _as_form(
        self,
        inputs: FormBody | SmallInputs,
        packed: Sequence[PackedFile],
        resources: AsyncExitStack,
    ) -> FormBody:
        """Unpack into a staging folder. One that a crash leaves is removed at the next start."""
        staged = str(uuid.uuid4())
        folder = self.stored.files.staging_folder(staged)
        resources.push_async_callback(in_thread, self.stored.files.discard, staged)
        body = inputs.form() if isinstance(inputs, SmallInputs) else inputs

        def unpack() -> FormBody:
            with full_disk_as_domain_error():
                files = [_written(file, folder) for file in packed]
            whole = body.with_files(files)
            whole.load_if_small()
            return whole

        return await in_thread(unpack)


def _content(file: PackedFile) -> bytes:
    with _as_unusable(_job_of(file)):
        return file.content()


def _written(file: PackedFile, folder: Path) -> FormFile:
    with _as_unusable(_job_of(file)):
        return FormFile(file.path, file.write_to(folder), file.entry.size)


def _job_of(file: PackedFile) -> int:
    return int(file.path.split("/")[1])


@contextlib.contextmanager
def _as_unusable(on_id: int) -> Iterator[None]:
    """Raise ``NeededResultsUnusable`` if results are gone or can't be unpacked."""
    try:
        yield
    except FileNotFoundError as error:
        raise NeededResultsUnusable(on_id, "they are missing from the server's storage") from error
    except DomainError as error:
        raise NeededResultsUnusable(on_id, str(error)) from error
