"""Retention: files of old jobs and orphaned files are removed, and nothing else."""

from pathlib import Path

from job_orchestrator.common.runtime.clock import SteadyClock
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.status import JobStatus
from job_orchestrator.server import keys
from job_orchestrator.server.files.folder import FolderFiles
from job_orchestrator.server.maintenance.retention import Retention
from job_orchestrator.server.store.sqlite.store import open_store
from running_server import StartServer
from stores import CLIENT, claim


async def test_trap_39_age_counts_from_the_end_and_active_jobs_live_on(tmp_path: Path) -> None:
    clock = [1000.0]
    files = FolderFiles(tmp_path / "data")
    await in_thread(files.prepare)
    async with open_store(tmp_path / "db.sqlite", now=lambda: clock[0]) as store:
        for uuid in ("ends", "runs"):
            await in_thread(files.staging_folder(uuid).mkdir, parents=True)
            await in_thread(files.accept, uuid)
            await store.create(uuid, 1, "x")
        retention = Retention(store, files, max_age_s=100)
        clock[0] += 500
        await store.transition(await store.get(1), JobStatus.KILLED, "")
        clock[0] += 99
        await retention.run_pass()
        assert files.job_folder("ends").exists()
        clock[0] += 2
        await retention.run_pass()
        assert (await store.get(1)).status == "Cleaned"
        assert not files.job_folder("ends").exists()
        assert files.job_folder("runs").exists()


async def test_start_after_a_crash_orphaned_folders_are_removed(
    start_server: StartServer, tmp_path: Path
) -> None:
    orphan = tmp_path / "data" / "00000000-0000-4000-8000-000000000000"
    foreign = tmp_path / "data" / "notes"
    for folder in (orphan / "input", foreign, tmp_path / "data" / "incoming" / "x"):
        folder.mkdir(parents=True)
    server = await start_server("http://127.0.0.1:9")
    job = await server.submit()
    assert not orphan.exists()
    assert foreign.exists()
    assert list((tmp_path / "data" / "incoming").iterdir()) == []
    await server.until(job, "Queued")


async def test_download_cleaned_job_is_answered_with_the_reason(start_server: StartServer) -> None:
    server = await start_server("http://127.0.0.1:9")
    job = await server.submit()
    async with server.http.post(f"/terminate/{job}") as response:
        assert response.status == 200
    store = server.app[keys.QUERIES].store
    await Retention(store, FolderFiles(server.root / "data"), max_age_s=0).run_pass()
    status, message = await server.state(job)
    assert (status, message) == ("Cleaned", "Its files were removed after the retention time")
    assert server.folders() == []


async def test_trap_49_jump_of_the_wall_clock_removes_nothing_and_keeps_the_order_of_times(
    tmp_path: Path,
) -> None:
    wall, monotonic = [1_700_000_000.0], [50.0]
    clock = SteadyClock(lambda: wall[0], lambda: monotonic[0])
    async with open_store(tmp_path / "db.sqlite", now=clock) as store:
        for uuid in ("ended", "unknown"):
            await store.create(uuid, 1, "x")
        await store.transition(await store.get(1), JobStatus.KILLED, "")
        claimed = await claim(store)
        sent = await store.transition(claimed[0], JobStatus.SUBMITTED, "", dest_id=7)
        running = await store.transition(sent, JobStatus.RUNNING, "")
        await store.client_lost(CLIENT, "gone")
        wall[0] += 3600
        assert await store.ended_before(1800, 10) == []
        assert await store.unknown_for(1800, {}) == []
        wall[0] -= 7200
        ended = await store.transition(running, JobStatus.FAILED, "")
        assert ended.started_at is not None
        assert ended.ended_at is not None
        assert ended.ended_at >= ended.started_at
        wall[0] += 3601
        monotonic[0] += 2500
        assert {job.uuid for job in await store.ended_before(1800, 10)} == {"ended", "unknown"}
