"""Files of jobs in both forms: in the database if they are small, else in ``JobFiles``."""

import hashlib
from pathlib import Path

import pytest

from fake_client import zip_of
from job_orchestrator.common.protocol.small_files import SmallFile, encode_files
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.clients.base import SmallInputs
from job_orchestrator.server.errors import ResultsTooLarge
from job_orchestrator.server.files.base import BrokenArchive, LocalFile, SmallResult
from job_orchestrator.server.files.folder import FolderFiles
from job_orchestrator.server.jobs.stored_files import StoredFiles
from job_orchestrator.server.maintenance.retention import Retention
from job_orchestrator.server.model import Job
from job_orchestrator.server.store.base import JobStore
from stores import claim
from test_job_files import accept, blocks_of, broken_off, sent

UUID = "11111111-1111-4111-8111-111111111111"
LIMIT = 2000
SMALL, LARGE = zip_of(out="small"), zip_of(out=bytes(range(256)).decode("latin-1") * 400)
FILES = [SmallFile("in/b", b"first"), SmallFile("run.sh", b"exit 0")]


@pytest.fixture
async def stored(store: JobStore, tmp_path: Path) -> StoredFiles:
    """Return the storage of a store without jobs."""
    files = FolderFiles(tmp_path / "data")
    await in_thread(files.prepare)
    return StoredFiles(store, files, LIMIT)


@pytest.fixture(params=["inputs in the database", "inputs in a folder"])
async def job(request: pytest.FixtureRequest, store: JobStore, stored: StoredFiles) -> Job:
    """Return a job that is at a client."""
    if request.param == "inputs in a folder":
        await in_thread(accept, stored.files, UUID, **{"in/b": "first"})
        await store.create(UUID, 1, "x", input_bytes=11)
    else:
        await store.create(UUID, 1, "x", input_bytes=11, inputs=encode_files(FILES))
    (claimed,) = await claim(store)
    return await store.transition(claimed, JobStatus.SUBMITTED, "", dest_id=1)


async def fetched(stored: StoredFiles, job: Job, content: bytes, size: int = 1 << 20) -> Job:
    """Receive ``content`` as the results of a job, and end it."""
    output = await stored.result_receiver(job).receive(blocks_of(content, size))
    assert (output.size, output.sha256) == (len(content), hashlib.sha256(content).digest())
    return await stored.store.transition(job, JobStatus.COMPLETED, "", output=output)


async def read(stored: StoredFiles, job: Job) -> bytes:
    """Return the results of a job, as they are served and as they are opened."""
    served = await stored.served_result(job)
    archive = await stored.open_result(job)
    with archive:
        content = await in_thread(archive.read)
    match served:
        case SmallResult():
            assert served.content == content
        case LocalFile():
            assert await in_thread(served.path.read_bytes) == content
    return content


async def test_inputs_are_sent_to_clients_as_a_form_whatever_the_form_of_storage(
    stored: StoredFiles, job: Job
) -> None:
    inputs = await stored.inputs(job)
    body = inputs.form() if isinstance(inputs, SmallInputs) else inputs
    content = await sent(body)
    assert content.index(b"in/b") < content.index(b"first") < content.index(b"exit 0")
    assert body.headers["Content-Length"] == str(len(content))
    if isinstance(inputs, SmallInputs):
        assert inputs.block == encode_files(FILES)


@pytest.mark.parametrize(
    ("content", "size", "is_small"),
    [(SMALL, 1 << 20, True), (SMALL, 7, True), (LARGE, 1 << 20, False), (LARGE, 700, False)],
)
async def test_results_are_stored_by_their_size_and_served_as_sent(
    stored: StoredFiles, job: Job, content: bytes, size: int, is_small: bool
) -> None:
    ended = await fetched(stored, job, content, size)
    assert await read(stored, ended) == content
    assert (await stored.store.result(ended) is not None) is is_small
    assert isinstance(await stored.served_result(ended), SmallResult) is is_small


async def test_small_results_have_a_version_that_survives_a_restart(
    stored: StoredFiles, job: Job
) -> None:
    ended = await fetched(stored, job, SMALL)
    assert ended.ended_at is not None
    assert await stored.served_result(ended) == SmallResult(SMALL, int(ended.ended_at * 10**9))


async def test_files_of_earlier_limits_are_found(stored: StoredFiles, job: Job) -> None:
    ended = await fetched(StoredFiles(stored.store, stored.files, 0), job, SMALL)
    assert await stored.store.result(ended) is None
    assert await read(stored, ended) == SMALL


@pytest.mark.parametrize("content", [b"", SMALL[:-5], b"<html>", LARGE[:-5]])
async def test_incomplete_results_are_refused_in_both_forms(
    stored: StoredFiles, job: Job, content: bytes
) -> None:
    receiver = stored.result_receiver(job)
    with pytest.raises(BrokenArchive):
        await receiver.receive(blocks_of(content, 700))
    with pytest.raises(FileNotFoundError):
        await stored.served_result(job)


@pytest.mark.parametrize("content", [SMALL, LARGE])
async def test_trap_47_results_that_are_not_what_the_client_has_packed_are_refused(
    stored: StoredFiles, job: Job, content: bytes
) -> None:
    with pytest.raises(BrokenArchive, match="were changed on their way"):
        await stored.result_receiver(job).receive(blocks_of(content, 700), bytes(32))


@pytest.mark.parametrize("content", [SMALL, LARGE])
async def test_transfer_that_breaks_off_leaves_nothing(
    stored: StoredFiles, job: Job, content: bytes
) -> None:
    receiver = stored.result_receiver(job)
    with pytest.raises(ConnectionResetError):
        await receiver.receive(broken_off(content, len(content) // 2, 1))
    with pytest.raises(FileNotFoundError):
        await stored.served_result(job)


@pytest.mark.parametrize(("content", "limit"), [(SMALL, 50), (LARGE, 50), (LARGE, 3000)])
async def test_results_larger_than_allowed_are_refused_in_both_forms(
    stored: StoredFiles, job: Job, content: bytes, limit: int
) -> None:
    with pytest.raises(ResultsTooLarge):
        await stored.result_receiver(job, limit).receive(blocks_of(content, 500))


async def test_inputs_that_are_gone_are_lost_only_if_they_were_in_a_folder(
    stored: StoredFiles, job: Job
) -> None:
    assert not await stored.are_lost(job)
    await in_thread(stored.files.remove, job)
    is_small = await stored.store.inputs(job) is not None
    assert await stored.are_lost(job) is not is_small
    if not is_small:
        with pytest.raises(FileNotFoundError):
            await stored.inputs(job)


@pytest.mark.parametrize("content", [SMALL, LARGE])
async def test_retention_removes_files_in_both_forms(
    stored: StoredFiles, job: Job, content: bytes
) -> None:
    ended = await fetched(stored, job, content)
    await Retention(stored.store, stored.files, max_age_s=-1).run_pass()
    assert (await stored.store.get(ended.id)).status is JobStatus.CLEANED
    for read_it in (stored.served_result, stored.open_result, stored.inputs):
        with pytest.raises(FileNotFoundError):
            await read_it(ended)
    assert list(await in_thread(stored.files.stored_uuids)) == []
