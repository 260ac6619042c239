"""Contract of ``JobFiles``: the same tests for every implementation.

Another implementation is one more entry in ``IMPLEMENTATIONS``.
"""

import hashlib
import io
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from fake_client import zip_of
from job_orchestrator.common.protocol.multipart_writer import FormBody
from job_orchestrator.common.runtime import fault_injection
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.server.errors import ResultsTooLarge
from job_orchestrator.server.files.base import (
    BrokenArchive,
    JobFiles,
    LocalFile,
    ServedResult,
    SmallResult,
)
from job_orchestrator.server.files.folder import FolderFiles
from job_orchestrator.server.model import Job, StoredOutput
from sample_job import JOB

UUID, OTHER_UUID = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
FIRST = replace(JOB, uuid=UUID, attempt=1)
SECOND = replace(FIRST, attempt=2)
SMALL = zip_of(out="small")
LARGE = zip_of(out="x" * 300_000)


def folder_files(root: Path) -> JobFiles:
    """Create the storage in a local folder."""
    files = FolderFiles(root / "data")
    files.prepare()
    return files


IMPLEMENTATIONS: Mapping[str, Callable[[Path], JobFiles]] = {"folder": folder_files}


@pytest.fixture(params=list(IMPLEMENTATIONS.values()), ids=list(IMPLEMENTATIONS))
def files(request: pytest.FixtureRequest, tmp_path: Path) -> JobFiles:
    """Return an empty storage."""
    create: Callable[[Path], JobFiles] = request.param
    return create(tmp_path)


@pytest.fixture
def failing_flush() -> Iterator[Callable[[int], None]]:
    """Return a function that lets the n-th flush to the disk from now on fail."""
    yield lambda number: fault_injection.arm(
        {fault_injection.VARIABLE: f"{fault_injection.Point.DISK_FLUSH}:{number}"}
    )
    fault_injection.arm({})


def stage(files: JobFiles, uuid: str = UUID, **contents: str) -> None:
    """Put the files of an upload into its staging folder."""
    for name, content in {"run.sh": "exit 0\n", **contents}.items():
        path = files.staging_folder(uuid) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def accept(files: JobFiles, uuid: str = UUID, **contents: str) -> None:
    """Store the files of an upload."""
    stage(files, uuid, **contents)
    files.accept(uuid)


async def sent(body: FormBody) -> bytes:
    """Return the body as it is sent to a client."""
    return body.content or b"".join([block async for block in body])


async def blocks_of(content: bytes, size: int) -> AsyncIterator[bytes]:
    """Yield ``content`` in blocks of ``size`` bytes."""
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def broken_off(content: bytes, size: int, count: int) -> AsyncIterator[bytes]:
    """Yield ``count`` blocks, then fail as a connection that breaks does."""
    blocks = blocks_of(content, size)
    for _ in range(count):
        yield await anext(blocks)
    raise ConnectionResetError("broken off")


async def receive(
    files: JobFiles, content: bytes, size: int = 100_000, sha256: bytes | None = None
) -> StoredOutput:
    """Receive ``content`` as the results of the first attempt, in blocks of ``size`` bytes."""
    return await files.result_receiver(FIRST).receive(blocks_of(content, size), sha256)


def stored(content: bytes) -> StoredOutput:
    return StoredOutput(len(content), hashlib.sha256(content).digest())


def content_of(result: ServedResult) -> bytes:
    """Return results as a web app gets them, from a file or from memory."""
    assert result.modified_ns > 0
    match result:
        case LocalFile():
            content = result.path.read_bytes()
            assert result.content in (None, content)
            assert result.size == len(content)
            return content
        case SmallResult():
            return result.content


def served(files: JobFiles, job: Job = FIRST) -> bytes:
    """Return the results of a job as a web app gets them."""
    return content_of(files.served_result(job))


async def kept(files: JobFiles) -> bytes | None:
    """Return the results, or None if there are none."""
    try:
        return await in_thread(served, files)
    except FileNotFoundError:
        return None


class TestInputs:
    """Uploads become inputs completely, or not at all."""

    async def test_accept_staged_files_become_inputs_with_their_paths(
        self, files: JobFiles
    ) -> None:
        await in_thread(accept, files, UUID, **{"in/b": "first", "a": "second"})
        body = await sent(await in_thread(files.inputs, FIRST.uuid, FIRST.fields()))
        assert [name in body for name in (b"exit 0\n", b"first", b"second")] == [True] * 3
        assert body.index(b'"a"') < body.index(b"in/b") < body.index(b"run.sh"), "sorted"
        assert not files.staging_folder(UUID).exists()
        assert list(await in_thread(files.stored_uuids)) == [UUID]

    async def test_inputs_large_files_are_streamed_with_their_content(
        self, files: JobFiles
    ) -> None:
        await in_thread(accept, files, UUID, large="x" * (3 << 20))
        body = await in_thread(files.inputs, FIRST.uuid, FIRST.fields())
        assert body.content is None
        assert (await sent(body)).count(b"x") >= 3 << 20

    def test_staged_upload_is_not_stored_before_accept(self, files: JobFiles) -> None:
        stage(files)
        with pytest.raises(FileNotFoundError):
            files.inputs(FIRST.uuid, FIRST.fields())
        assert list(files.stored_uuids()) == []

    @pytest.mark.parametrize("number", [1, 2, 3])
    def test_accept_flush_fails_nothing_is_left_after_discard(
        self, files: JobFiles, failing_flush: Callable[[int], None], number: int
    ) -> None:
        stage(files)
        failing_flush(number)
        with pytest.raises(OSError, match="error"):
            files.accept(UUID)
        files.discard(UUID)
        assert list(files.stored_uuids()) == []
        assert not files.staging_folder(UUID).exists()

    def test_discard_is_idempotent_in_every_state(self, files: JobFiles) -> None:
        files.discard(UUID)
        stage(files)
        files.discard(UUID)
        assert not files.staging_folder(UUID).exists()
        accept(files)
        for _ in range(2):
            files.discard(UUID)
        assert list(files.stored_uuids()) == []

    def test_discard_orphan_others_are_kept(self, files: JobFiles) -> None:
        accept(files)
        accept(files, OTHER_UUID)
        assert set(files.stored_uuids()) == {UUID, OTHER_UUID}
        files.discard(OTHER_UUID)
        assert list(files.stored_uuids()) == [UUID]
        files.inputs(FIRST.uuid, FIRST.fields())

    def test_are_lost_only_when_stored_files_are_gone(self, files: JobFiles) -> None:
        accept(files)
        assert not files.are_lost(FIRST.uuid)
        files.remove(FIRST)
        assert files.are_lost(FIRST.uuid)

    def test_check_of_a_usable_storage_raises_nothing(self, files: JobFiles) -> None:
        files.check()


class TestResults:
    """Results are complete or absent, and belong to one attempt."""

    @pytest.fixture(autouse=True)
    async def accepted(self, files: JobFiles) -> None:
        """Store the inputs of the job."""
        await in_thread(accept, files)

    @pytest.mark.parametrize(
        ("content", "size"),
        [(SMALL, 1 << 20), (LARGE, 1 << 20), (LARGE, 100_000), (LARGE, 150_000), (SMALL, 1)],
    )
    async def test_receive_results_are_served_as_sent(
        self, files: JobFiles, content: bytes, size: int
    ) -> None:
        assert await kept(files) is None
        assert await receive(files, content, size) == stored(content)
        assert await kept(files) == content

    async def test_served_result_small_comes_with_its_content(self, files: JobFiles) -> None:
        await receive(files, SMALL)
        assert (await in_thread(files.served_result, FIRST)).content == SMALL
        await receive(files, LARGE)
        assert (await in_thread(files.served_result, FIRST)).content is None

    async def test_open_result_is_read_at_any_position(self, files: JobFiles) -> None:
        await receive(files, LARGE)

        def read() -> list[str]:
            with files.open_result(FIRST) as file, zipfile.ZipFile(file) as archive:
                file.seek(-22, io.SEEK_END)
                assert file.read() == LARGE[-22:]
                return archive.namelist()

        assert await in_thread(read) == ["out"]

    async def test_open_result_missing_results_raise_file_not_found(self, files: JobFiles) -> None:
        with pytest.raises(FileNotFoundError):
            await in_thread(files.open_result, FIRST)

    @pytest.mark.parametrize("count", [0, 1, 2])
    async def test_receive_transfer_breaks_off_nothing_is_kept(
        self, files: JobFiles, count: int
    ) -> None:
        with pytest.raises(ConnectionResetError):
            await files.result_receiver(FIRST).receive(broken_off(LARGE, 100_000, count))
        assert await kept(files) is None
        assert await receive(files, LARGE) == stored(LARGE), "a repeated transfer succeeds"

    @pytest.mark.parametrize("content", [b"", SMALL[:-5], LARGE[:-5], b"<html>"])
    async def test_receive_incomplete_archive_is_refused_and_not_kept(
        self, files: JobFiles, content: bytes
    ) -> None:
        with pytest.raises(BrokenArchive):
            await receive(files, content)
        assert await kept(files) is None

    @pytest.mark.parametrize("content", [SMALL, LARGE])
    async def test_receive_flush_fails_results_are_complete_or_absent(
        self, files: JobFiles, content: bytes, failing_flush: Callable[[int], None]
    ) -> None:
        failing_flush(1)
        with pytest.raises(OSError, match="error"):
            await receive(files, content)
        assert await kept(files) in (None, content)

    async def test_receive_too_large_fails_before_the_rest_is_read(self, files: JobFiles) -> None:
        taken: list[int] = []

        async def blocks() -> AsyncIterator[bytes]:
            async for block in blocks_of(LARGE, 100_000):
                taken.append(len(block))
                yield block

        with pytest.raises(ResultsTooLarge):
            await files.result_receiver(FIRST, max_bytes=150_000).receive(blocks())
        assert len(taken) == 2
        assert await kept(files) is None

    async def test_receive_repeated_results_are_replaced(self, files: JobFiles) -> None:
        await receive(files, SMALL)
        await receive(files, LARGE)
        assert await kept(files) == LARGE

    async def test_receive_failed_repeat_keeps_the_earlier_results(self, files: JobFiles) -> None:
        await receive(files, SMALL)
        with pytest.raises(ConnectionResetError):
            await files.result_receiver(FIRST).receive(broken_off(LARGE, 100_000, 2))
        assert await kept(files) == SMALL

    async def test_receive_another_attempt_replaces_nothing(self, files: JobFiles) -> None:
        await receive(files, SMALL)
        await files.result_receiver(SECOND).receive(blocks_of(LARGE, 1 << 20))
        assert await kept(files) == SMALL
        assert await in_thread(served, files, SECOND) == LARGE

    @pytest.mark.parametrize("content", [SMALL, LARGE])
    async def test_receive_job_was_removed_raises_and_stores_nothing(
        self, files: JobFiles, content: bytes
    ) -> None:
        await in_thread(files.remove, FIRST)
        with pytest.raises(FileNotFoundError):
            await receive(files, content)
        assert list(await in_thread(files.stored_uuids)) == []

    @pytest.mark.parametrize("content", [SMALL, LARGE])
    async def test_receive_results_of_a_job_whose_inputs_are_elsewhere_are_stored(
        self, files: JobFiles, content: bytes
    ) -> None:
        other = replace(FIRST, uuid=OTHER_UUID)
        receiver = files.result_receiver(other, first_files=True)
        await receiver.receive(blocks_of(content, 100_000))
        assert await in_thread(served, files, other) == content
        await in_thread(files.remove, other)
        assert list(await in_thread(files.stored_uuids)) == [UUID]

    async def test_remove_is_idempotent_and_removes_inputs_and_results(
        self, files: JobFiles
    ) -> None:
        await receive(files, SMALL)
        for _ in range(2):
            await in_thread(files.remove, FIRST)
        assert await kept(files) is None
        with pytest.raises(FileNotFoundError):
            await in_thread(files.inputs, FIRST.uuid, FIRST.fields())
        assert list(await in_thread(files.stored_uuids)) == []


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
async def test_results_with_another_digest_than_at_the_client_are_not_kept(
    files: JobFiles, content: bytes
) -> None:
    await in_thread(accept, files)
    await receive(files, SMALL)
    changed = content[:100] + bytes([content[100] ^ 1]) + content[101:]
    with pytest.raises(BrokenArchive, match="changed on their way"):
        await receive(files, changed, sha256=stored(content).sha256)
    assert await kept(files) == SMALL
    await receive(files, content, sha256=stored(content).sha256)
    assert await kept(files) == content
