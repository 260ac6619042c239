"""A portal's service on a Slurm cluster: real services, real daemons, and what dies of them."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from harness import Portal, Service, StartClient, StartServer, eventually
from slurm_cluster import SlurmCluster, slurm_cluster

pytestmark = pytest.mark.batch

JOBS = 50


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    with slurm_cluster() as cluster:
        yield cluster


@pytest.fixture
async def client(start_client: StartClient, cluster: SlurmCluster) -> Service:
    return await start_client(
        EXECUTOR="slurm", SLOTS="100", SLURM_CONF=cluster.environment["SLURM_CONF"]
    )


@pytest.fixture
async def portal(
    client: Service, start_server: StartServer, session: aiohttp.ClientSession
) -> Portal:
    server = await start_server(
        client,
        SERVICE_EXAMPLE_MAX_RUNS="100",
        SERVICE_EXAMPLE_RUNS_PER_USER="100",
        SERVICE_EXAMPLE_LOST_AFTER="1h",
        LOST_AFTER="1s",
    )
    return Portal(server.url, session)


async def test_job_runs_through_slurm_from_upload_to_result(
    portal: Portal, cluster: SlurmCluster
) -> None:
    job = await portal.submit("cat input; echo $SLURM_JOB_NAME > name\n", {"input": b"hello"})
    assert (await portal.end_of(job))["status"] == "Completed"
    results = await portal.results(job)
    assert results.read("name").startswith(b"jo-")
    assert results.read(".orchestrator/stdout.txt") == b"hello"


async def test_running_jobs_survive_the_death_of_jo_client_and_run_once(
    portal: Portal, client: Service, tmp_path: Path
) -> None:
    runs, go = tmp_path / "runs", tmp_path / "go"
    runs.mkdir()
    script = f"echo run >> {runs}/$PWD_NAME\nuntil [ -e {go} ]; do sleep 0.2; done\nexit 4\n"
    jobs = [await portal.submit(script.replace("$PWD_NAME", str(number))) for number in range(JOBS)]

    async def all_run() -> bool:
        states = await asyncio.gather(*(portal.state(job) for job in jobs))
        return all(state["status"] == "Running" for state in states)

    await eventually(all_run)
    await client.end(signal.SIGKILL)
    go.touch()  # all end while no jo-client runs, and the time of LOST_AFTER passes
    await asyncio.sleep(3)
    await client.start()
    ends = await asyncio.gather(*(portal.end_of(job) for job in jobs))

    assert {(end["status"], end["message"]) for end in ends} == {
        ("Failed", "run.sh exited with code 4")
    }
    assert {file.read_text() for file in runs.iterdir()} == {"run\n"}
    assert len(list(runs.iterdir())) == JOBS


async def test_jobs_go_on_while_jo_client_is_stopped_in_order(
    portal: Portal, client: Service, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    job = await portal.submit(f"echo run\nuntil [ -e {go} ]; do sleep 0.1; done\n")
    await portal.until(job, "Running")
    assert await client.end() == 0
    await client.start()
    await portal.until(job, "Running")
    go.touch()
    assert (await portal.end_of(job))["status"] == "Completed"
    assert (await portal.results(job)).read(".orchestrator/stdout.txt") == b"run\n"


async def test_job_in_the_queue_is_submitted_shows_why_and_can_be_terminated(
    portal: Portal, client: Service, cluster: SlurmCluster
) -> None:
    await asyncio.to_thread(
        cluster.command, "scontrol", "update", "PartitionName=main", "State=DOWN"
    )
    try:
        job = await portal.submit("echo never\n")

        async def shows_why() -> bool:
            state = await portal.state(job)
            assert state["status"] in ("Queued", "Processing", "Submitted")
            return "queue of Slurm (PartitionDown)" in state["message"]

        await eventually(shows_why)
        await client.end(signal.SIGKILL)
        await client.start()
        await portal.until(job, "Submitted")
        await portal.terminate(job)
        assert (await portal.end_of(job))["status"] == "Killed"
    finally:
        await asyncio.to_thread(
            cluster.command, "scontrol", "update", "PartitionName=main", "State=UP"
        )
