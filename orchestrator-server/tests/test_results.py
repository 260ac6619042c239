"""Access to stored results: concurrent requests share one read."""

import asyncio
from pathlib import Path

import pytest

from job_orchestrator.server.files.folder import FolderFiles
from job_orchestrator.server.jobs.results import SharedReads
from job_orchestrator.server.jobs.stored_files import StoredFiles
from job_orchestrator.server.store.base import JobStore
from sample_job import JOB


@pytest.fixture
def reads(tmp_path: Path, store: JobStore) -> SharedReads:
    """Return the reads of a job with small results."""
    files = FolderFiles(tmp_path)
    path = files.result_path(JOB.uuid, JOB.attempt)
    path.parent.mkdir()
    path.write_bytes(b"results")
    return SharedReads(StoredFiles(store, files, 0))


async def test_read_concurrent_requests_share_one_read(reads: SharedReads) -> None:
    results = await asyncio.gather(*(reads.read(JOB) for _ in range(5)))
    assert results[0].content == b"results"
    assert all(each is results[0] for each in results)
    assert await reads.read(JOB) is not results[0], "nothing is cached"


async def test_read_first_request_is_cancelled_others_get_the_results(reads: SharedReads) -> None:
    first, *others = (asyncio.create_task(reads.read(JOB)) for _ in range(3))
    await asyncio.sleep(0)
    first.cancel()
    assert [(await each).content for each in others] == [b"results"] * 2
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_read_results_are_missing_all_requests_get_the_error(
    tmp_path: Path, store: JobStore
) -> None:
    reads = SharedReads(StoredFiles(store, FolderFiles(tmp_path), 0))
    for error in await asyncio.gather(*(reads.read(JOB) for _ in range(2)), return_exceptions=True):
        assert isinstance(error, FileNotFoundError)
