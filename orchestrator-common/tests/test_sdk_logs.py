"""Output of a job that is followed: each byte once, whichever change falls between two requests."""

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from job_orchestrator.common.messages.encoding import WireTime, encode
from job_orchestrator.common.messages.jobs import JobDetail
from job_orchestrator.common.status import JobStatus
from job_orchestrator.sdk import AsyncClient


def detail(status: JobStatus, attempt: int) -> JobDetail:
    """Return the answer about a job in a state and an attempt."""
    now = WireTime.at(1_790_000_000.0)
    return JobDetail(
        id=1,
        user_id=1,
        service="example",
        status=status,
        message="",
        created_at=now,
        attempt=attempt,
        history=[],
    )


async def followed(
    jobs: list[tuple[JobStatus, int]], logs: list[tuple[int, bytes]]
) -> tuple[bytes, list[int]]:
    """Follow a job; return its output and the re-runs that were reported.

    ``jobs`` are its states at the requests for the job, ``logs`` attempt and output at those for
    the output. The last of each is repeated.
    """
    reruns: list[int] = []

    async def job(_: web.Request) -> web.Response:
        status, attempt = jobs.pop(0) if len(jobs) > 1 else jobs[0]
        return web.Response(body=encode(detail(status, attempt)), content_type="application/json")

    async def output(request: web.Request) -> web.Response:
        attempt, text = logs.pop(0) if len(logs) > 1 else logs[0]
        headers = {"Job-Attempt": str(attempt)}
        return web.Response(body=text[int(request.query["offset"]) :], headers=headers)

    app = web.Application()
    app.router.add_get("/jobs/1", job)
    app.router.add_get("/jobs/1/logs", output)
    async with TestServer(app) as server, AsyncClient(str(server.make_url(""))) as client:
        blocks = client.logs(1, stream="stdout", follow=True, on_rerun=reruns.append)
        return b"".join([block async for block in blocks]), reruns


@pytest.mark.parametrize(
    "jobs",
    [
        [(JobStatus.QUEUED, 0), (JobStatus.COMPLETED, 1)],
        [(JobStatus.QUEUED, 0), (JobStatus.QUEUED, 0), (JobStatus.COMPLETED, 1)],
        [(JobStatus.QUEUED, 0), (JobStatus.PROCESSING, 1), (JobStatus.COMPLETED, 1)],
        [(JobStatus.PROCESSING, 1), (JobStatus.RUNNING, 1), (JobStatus.COMPLETED, 1)],
        [(JobStatus.COMPLETED, 1)],
    ],
)
async def test_output_of_the_first_attempt_is_yielded_once_whenever_it_is_claimed(
    jobs: list[tuple[JobStatus, int]],
) -> None:
    assert await followed(jobs, [(1, b"first\n")]) == (b"first\n", [])


async def test_output_that_a_restart_of_the_server_cuts_off_is_continued() -> None:
    output, reruns = await followed(
        [(JobStatus.RUNNING, 1), (JobStatus.RUNNING, 1), (JobStatus.COMPLETED, 1)],
        [(1, b"fir"), (1, b"first\n")],
    )
    assert (output, reruns) == (b"first\n", [])


@pytest.mark.parametrize(
    "jobs",
    [
        [(JobStatus.RUNNING, 1), (JobStatus.QUEUED, 1), (JobStatus.COMPLETED, 2)],
        [(JobStatus.RUNNING, 1), (JobStatus.COMPLETED, 2)],
    ],
)
async def test_output_of_another_attempt_restarts_at_its_beginning_and_is_reported_once(
    jobs: list[tuple[JobStatus, int]],
) -> None:
    logs = [(1, b"first\n"), (2, b"second\n")]
    assert await followed(jobs, logs) == (b"first\nsecond\n", [2])


async def test_attempt_that_printed_nothing_is_not_reported_as_a_rerun() -> None:
    output, reruns = await followed(
        [(JobStatus.RUNNING, 1), (JobStatus.RUNNING, 2), (JobStatus.COMPLETED, 2)],
        [(1, b""), (2, b"second\n")],
    )
    assert (output, reruns) == (b"second\n", [])
