"""Jobs that ask for GPUs, CPUs and memory, with real services, the library and jo."""

from pathlib import Path

import pytest

from harness import StartClient, StartServer, eventually
from jo_command import SUBMIT, Jo
from job_orchestrator.sdk import AsyncClient, JobStatus, Refused

SCRIPT = """\
echo "$CUDA_VISIBLE_DEVICES" >> {folder}/started
while [ ! -e {folder}/go-$CUDA_VISIBLE_DEVICES ]; do sleep 0.05; done
rm {folder}/go-$CUDA_VISIBLE_DEVICES
"""


async def test_no_gpu_has_two_jobs_at_the_same_time(
    start_client: StartClient, start_server: StartServer, tmp_path: Path
) -> None:
    client = await start_client(GPUS="0,3", SLOTS="4")
    server = await start_server(client)
    started = tmp_path / "started"

    async def devices(count: int) -> list[str]:
        async def enough() -> bool:
            return started.exists() and len(started.read_text().split()) >= count

        await eventually(enough)
        return started.read_text().split()

    script = SCRIPT.format(folder=tmp_path).encode()
    async with AsyncClient(server.url) as api:

        async def known() -> bool:
            return (await api.clients())[0].resources is not None

        await eventually(known)
        jobs = [
            (await api.submit("example", {"run.sh": script}, user_id=user, gpus=1)).id
            for user in (1, 2, 3)
        ]
        assert sorted(await devices(2)) == ["0", "3"]
        waits = await api.job(jobs[2])
        assert waits.status is JobStatus.QUEUED
        (tmp_path / "go-3").touch()
        assert (await devices(3))[2] == "3"
        (tmp_path / "go-0").touch()
        (tmp_path / "go-3").touch()
        for job in jobs:
            assert (await api.wait(job, timeout_s=60)).status is JobStatus.COMPLETED
        with pytest.raises(Refused, match="has 3 GPUs; the largest has"):
            await api.submit("example", {"run.sh": b"true\n"}, user_id=1, gpus=3)


async def test_jo_asks_for_resources_and_shows_them(
    start_client: StartClient, start_server: StartServer, tmp_path: Path
) -> None:
    client = await start_client(CPUS="4", MEMORY="8GB", GPUS="none")
    jo = Jo((await start_server(client)).url, tmp_path)
    (tmp_path / "run.sh").write_text("echo $OMP_NUM_THREADS\n")
    run = await jo(*SUBMIT, "--cpus", "2", "--memory", "1GB", "--follow", "run.sh")
    assert (run.code, run.out.split()[-1]) == (0, "2"), run
    shown = await jo("status", "1")
    assert "2 CPUs, 1.0 GB of memory" in shown.out
    refused = await jo(*SUBMIT, "--cpus", "64", "run.sh")
    assert refused.code != 0
    assert "the largest has 4 CPUs, 8 GB of memory" in refused.err.replace("\n", " ")
