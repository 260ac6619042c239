"""Output of a job that is followed: each byte once, also when its attempt begins late."""

from aiohttp import web
from aiohttp.test_utils import TestServer

from job_orchestrator.common.messages import JobDetail, WireTime, encode
from job_orchestrator.common.status import JobStatus
from job_orchestrator.sdk import AsyncClient

OUTPUT = {1: b"first\n", 2: b"second\n"}


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


async def followed(*states: tuple[JobStatus, int]) -> tuple[bytes, list[int]]:
    """Follow a job that is in these states, one for each request; return output and re-runs.

    A request for the output is answered with that of the attempt that the next state has.
    """
    shown = list(states)
    reruns: list[int] = []

    async def job(_: web.Request) -> web.Response:
        status, attempt = shown.pop(0) if len(shown) > 1 else shown[0]
        return web.Response(body=encode(detail(status, attempt)), content_type="application/json")

    async def logs(request: web.Request) -> web.Response:
        return web.Response(body=OUTPUT[shown[0][1]][int(request.query["offset"]) :])

    app = web.Application()
    app.router.add_get("/jobs/1", job)
    app.router.add_get("/jobs/1/logs", logs)
    async with TestServer(app) as server, AsyncClient(str(server.make_url(""))) as client:
        blocks = client.logs(1, stream="stdout", follow=True, on_rerun=reruns.append)
        return b"".join([block async for block in blocks]), reruns


async def test_output_of_a_job_that_was_queued_at_the_first_request_is_yielded_once() -> None:
    output, reruns = await followed((JobStatus.QUEUED, 0), (JobStatus.COMPLETED, 1))

    assert (output, reruns) == (b"first\n", [])


async def test_output_of_a_job_that_is_run_again_restarts_at_its_beginning() -> None:
    output, reruns = await followed(
        (JobStatus.RUNNING, 1),
        (JobStatus.RUNNING, 1),
        (JobStatus.QUEUED, 1),
        (JobStatus.COMPLETED, 2),
    )

    assert output == b"first\nsecond\n"
    assert reruns == [2]
