"""Results that many ask for at once are read once."""

import asyncio
from pathlib import Path

import pytest

from job_orchestrator.server.files.folder import JobFiles
from job_orchestrator.server.jobs.small_results import SmallResults
from sample_job import JOB


@pytest.fixture
def small(tmp_path: Path) -> SmallResults:
    """Those of a job."""
    files = JobFiles(tmp_path)
    files.result(JOB).parent.mkdir()
    files.result(JOB).write_bytes(b"results")
    return SmallResults(files)


async def test_crowd_that_asks_at_once_shares_one_read(small: SmallResults) -> None:
    found = await asyncio.gather(*(small.read(JOB) for _ in range(5)))
    assert found[0] is not None
    assert found[0].content == b"results"
    assert all(each is found[0] for each in found)
    assert await small.read(JOB) is not found[0]  # nothing is kept


async def test_others_are_answered_when_who_asked_first_has_gone(small: SmallResults) -> None:
    first, second = (asyncio.create_task(small.read(JOB)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second is None  # it is sent from the disk
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_results_that_are_gone_are_so_for_all(tmp_path: Path) -> None:
    small = SmallResults(JobFiles(tmp_path))
    for found in await asyncio.gather(*(small.read(JOB) for _ in range(2)), return_exceptions=True):
        assert isinstance(found, FileNotFoundError)
