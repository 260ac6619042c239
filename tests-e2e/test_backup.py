"""Backup, restore and check, on a server that works meanwhile."""

import asyncio
import contextlib
import json
import shutil
import signal
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from harness import BIN, Portal, Service, StartClient, StartServer

AGREE = (0, "Database and files agree\n")


async def command(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit status and output of ``jo-server`` in a folder."""
    process = await asyncio.create_subprocess_exec(
        BIN / "jo-server",
        *arguments,
        cwd=folder,
        env={},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


def destroy(server: Service) -> None:
    """Nothing of it is left."""
    for path in server.folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.asynccontextmanager
async def load(portal: Portal, acknowledged: dict[int, str]) -> AsyncIterator[None]:
    """Two users who submit all the time."""

    async def submit(user: int) -> None:
        for number in range(10_000):
            word = f"{user}-{number}"
            files = {"in/w": word.encode()}
            job = await portal.submit("tr a-z A-Z < in/w > out\n", files, user=user)
            acknowledged[job] = word
            await portal.end_of(job)

    tasks = [asyncio.create_task(submit(user)) for user in (1, 2)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def at_least(count: int, acknowledged: dict[int, str]) -> None:
    """Wait for so many jobs."""
    async with asyncio.timeout(30):
        while len(acknowledged) < count:  # noqa: ASYNC110 (there is no event)
            await asyncio.sleep(0.02)


async def test_backup_under_load_brings_back_every_job_after_the_original_is_destroyed(
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    server = await start_server(await start_client(), SERVICE_EXAMPLE_MAX_RUNS="2")
    portal = Portal(server.url, session)
    failed = await portal.submit("echo why > reason; exit 3\n")
    await portal.end_of(failed)
    acknowledged: dict[int, str] = {}
    backup = str(tmp_path / "backup")
    async with load(portal, acknowledged):
        await at_least(10, acknowledged)
        waiting = [await portal.submit("sleep 0.3; echo done > out\n", user=9) for _ in range(4)]
        before = dict(acknowledged)
        status, told = await command(server.folder, "backup", backup)
        assert status == 0, told
        after = max(acknowledged)
    await server.end(signal.SIGKILL)
    (server.folder / "db.sqlite").rename(tmp_path / "moved")
    assert "db.sqlite-wal is there" in (await command(server.folder, "restore", backup))[1]
    await asyncio.to_thread(destroy, server)

    status, told = await command(server.folder, "restore", backup)
    assert status == 0, told
    assert await command(server.folder, "check") == AGREE
    await server.start()
    for database in (tmp_path / "backup" / "db.sqlite", server.folder / "db.sqlite"):
        assert database.stat().st_mode & 0o777 == 0o600, "nobody else's business"
    for job, word in before.items():
        assert (await portal.end_of(job))["status"] == "Completed"
        assert (await portal.results(job)).read("out").decode().strip() == word.upper()
    assert (await portal.end_of(failed))["message"] == "run.sh exited with code 3"
    assert (await portal.results(failed, "download_partial")).read("reason") == b"why\n"
    for job in waiting:
        assert (await portal.end_of(job))["status"] == "Completed"
    assert await portal.submit("exit 0\n") > after, "no id is given twice"
    status, told = await command(server.folder, "restore", backup)
    assert status == 2
    assert "move it and the data folder away first" in told


async def test_backup_is_consistent_while_jobs_are_cleaned(
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    server = await start_server(await start_client(), SERVICE_EXAMPLE_MAX_RUNS="4")
    portal = Portal(server.url, session)
    jobs = [await portal.submit("echo x > out\n") for _ in range(30)]
    for job in jobs:
        await portal.end_of(job)
    # Started anew, it cleans all of them at once, while they are backed up.
    await server.end()
    server.settings["MAX_AGE"] = "0"
    _, results = await asyncio.gather(
        server.start(),
        asyncio.gather(
            *(command(server.folder, "backup", str(tmp_path / f"b{n}")) for n in range(3))
        ),
    )
    await server.end()
    for number, (status, told) in enumerate(results):
        assert status == 0, told
        assert "missing" not in told
        await asyncio.to_thread(destroy, server)
        status, told = await command(server.folder, "restore", str(tmp_path / f"b{number}"))
        assert status == 0, told
        assert await command(server.folder, "check") == AGREE


async def test_check_finds_what_is_wrong_and_mends_it(
    start_client: StartClient, start_server: StartServer, session: aiohttp.ClientSession
) -> None:
    server = await start_server(await start_client())
    portal = Portal(server.url, session)
    jobs = [await portal.submit("echo x > out\n") for _ in range(5)]
    for job in jobs:
        await portal.end_of(job)
    await server.end()
    data, database = server.folder / "data", server.folder / "db.sqlite"

    def break_it() -> None:
        with contextlib.closing(sqlite3.connect(database)) as connection, connection:
            uuids = [u for (u,) in connection.execute("SELECT uuid FROM jobs ORDER BY id")]
            connection.execute(
                "DELETE FROM job_events WHERE job_id = 5 AND to_status = 'Completed'"
            )
            connection.execute("UPDATE usage SET queued = queued + 1")
        shutil.rmtree(data / uuids[0])
        (data / uuids[1] / "output-1.zip").unlink()
        (data / uuids[2] / "output-1.zip").write_bytes(b"PK no more")
        (data / uuids[3] / ".output-1").write_bytes(b"half")
        shutil.copytree(data / uuids[3], data / "00000000-0000-4000-8000-000000000000")
        (data / "incoming" / "half").mkdir()

    await asyncio.to_thread(break_it)
    status, told = await command(server.folder, "check")
    assert status == 1
    *wrong, history, usage = [line.split(":")[0] for line in told.splitlines()]
    assert wrong == [
        "Job 1 is Completed, and its files are gone",
        "Job 2 is Completed, and its output is gone",
        "Job 3 is Completed, and its output can't be read",
        "The folder 00000000-0000-4000-8000-000000000000 belongs to no job",
        "The upload half never arrived whole",
        "Results of job 4 never arrived whole",
    ]
    assert history.startswith("Job 5 is Completed, and its history ends with ")
    assert usage == "What user 1 has queued and stored is counted wrongly"
    status, told = await command(server.folder, "check", "--repair")
    assert (status, told.splitlines()[-1]) == (0, "8 repaired, 0 left")
    assert await command(server.folder, "check") == AGREE
    await server.start()
    assert (await portal.state(1))["status"] == "Cleaned"
    assert (await portal.results(4)).read("out") == b"x\n"


async def test_repair_keeps_the_output_of_an_ended_job_whose_inputs_are_gone(
    start_client: StartClient, start_server: StartServer, session: aiohttp.ClientSession
) -> None:
    server = await start_server(await start_client())
    portal = Portal(server.url, session)
    good, broken = [await portal.submit("echo x > out\n") for _ in range(2)]
    for job in (good, broken):
        await portal.end_of(job)
    await server.end()

    def break_it() -> None:
        with contextlib.closing(sqlite3.connect(server.folder / "db.sqlite")) as connection:
            uuids = [u for (u,) in connection.execute("SELECT uuid FROM jobs ORDER BY id")]
        first, second = (server.folder / "data" / uuid for uuid in uuids)
        (first / "input" / "run.sh").unlink()
        shutil.rmtree(second / "input")
        (second / "output-1.zip").write_bytes(b"PK no more")

    await asyncio.to_thread(break_it)
    status, told = await command(server.folder, "check")
    assert status == 1
    assert told.startswith(f"Job {broken} is Completed, and its output can't be read: ")
    assert told.endswith(": with --repair its row would be made to have no output\n")
    assert told.count("\n") == 1, "of the other one nothing is wrong"
    status, told = await command(server.folder, "check", "--repair")
    assert (status, told.splitlines()[-1]) == (0, "1 repaired, 0 left")
    assert "its row is made to have no output" in told
    assert await command(server.folder, "check") == AGREE
    await server.start()
    assert (await portal.results(good)).read("out") == b"x\n"


async def test_repair_leaves_an_output_that_can_not_be_read_just_now(
    start_client: StartClient, start_server: StartServer, session: aiohttp.ClientSession
) -> None:
    server = await start_server(await start_client())
    portal = Portal(server.url, session)
    job = await portal.submit("echo x > out\n")
    await portal.end_of(job)
    await server.end()
    (output,) = (server.folder / "data").glob("*/output-1.zip")
    # As on a disk that fails, or where another user owns it: opening it is an error.
    output.rename(output.with_name("kept"))
    output.symlink_to(output.name)
    for arguments in (("check",), ("check", "--repair"), ("check", "--repair")):
        status, told = await command(server.folder, *arguments)
        assert status == 1
        assert "its output can't be read" in told
        assert ": nothing is changed; see that jo-server's user can read it\n" in told
    output.with_name("kept").replace(output)
    assert await command(server.folder, "check") == AGREE
    await server.start()
    assert (await portal.results(job)).read("out") == b"x\n"


async def test_repair_mends_more_wrong_histories_than_are_shown(
    start_client: StartClient, start_server: StartServer, session: aiohttp.ClientSession
) -> None:
    server = await start_server(await start_client())
    portal = Portal(server.url, session)
    for job in [await portal.submit("exit 0\n") for _ in range(22)]:
        await portal.end_of(job)
    await server.end()

    def break_it() -> None:
        database = server.folder / "db.sqlite"
        with contextlib.closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("DELETE FROM job_events WHERE to_status = 'Completed'")

    await asyncio.to_thread(break_it)
    _, told = await command(server.folder, "check")
    assert "The histories of 2 more jobs are as wrong" in told
    status, told = await command(server.folder, "check", "--repair")
    assert (status, told.splitlines()[-1]) == (0, "21 repaired, 0 left")
    assert await command(server.folder, "check") == AGREE


async def test_job_whose_folder_is_gone_ends_and_can_be_ended(
    portal: Portal, server: Service
) -> None:
    data = server.folder / "data"
    going_on, stuck = [
        await portal.submit(f"while test ! -e {data}/go; do sleep 0.05; done\n{then}\n")
        for then in ("exit 0", "sleep 300")
    ]
    for job in (going_on, stuck):
        await portal.until(job, "Running")
    for folder in data.glob("*-*"):
        await asyncio.to_thread(shutil.rmtree, folder)
    assert (await portal.terminate(stuck))[0] == 200
    (data / "go").touch()
    ended = await portal.end_of(going_on)
    assert ended["status"] == "Failed"
    assert "Its folder on the server is gone" in ended["message"]


async def test_backup_of_the_wrong_or_an_incomplete_data_folder_does_not_look_like_a_good_one(
    portal: Portal, server: Service, tmp_path: Path
) -> None:
    job = await portal.submit("echo x > out\n")
    await portal.end_of(job)
    elsewhere = ("--data-path", str(tmp_path / "none"))
    status, told = await command(server.folder, *elsewhere, "backup", str(tmp_path / "b1"))
    assert (status, told.count("\n")) == (2, 1)
    assert "none', where there is no folder" in told
    assert not (tmp_path / "b1").exists()
    await asyncio.to_thread(shutil.rmtree, next((server.folder / "data").glob("*-*")))
    status, told = await command(server.folder, "backup", str(tmp_path / "b2"))
    assert status == 1
    assert f"Job {job} is Completed and" in told


async def test_check_beside_a_working_server_finds_nothing_wrong(
    portal: Portal, server: Service
) -> None:
    acknowledged: dict[int, str] = {}
    async with load(portal, acknowledged):
        await at_least(4, acknowledged)
        assert await command(server.folder, "check") == AGREE
        status, told = await command(server.folder, "check", "--repair")
        assert status == 2
        assert "Another jo-server uses DATA_PATH" in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("backup", "there"), "is there already"),
        (("restore", "nowhere"), "jo-server backup has made: there is no such folder\n"),
        (("restore", "there"), "jo-server backup has made: there is no backup.json in it\n"),
        (("--db-path", "nowhere", "check"), "can't be used"),
        (("--data-path", "nowhere", "check"), "there is no folder"),
        (("--db-path", "there/db", "backup", "new"), "can't be used"),
    ],
)
async def test_command_that_can_not_be_done_says_why_in_a_line(
    tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    for name in ("there", "data"):
        (tmp_path / name).mkdir()
    status, output = await command(tmp_path, *arguments)
    assert status == 2, output
    assert told in output
    assert output.count("\n") == 1
    assert not (tmp_path / "new").exists()


async def test_backup_whose_database_is_damaged_is_not_restored(
    portal: Portal, server: Service, tmp_path: Path
) -> None:
    await portal.end_of(await portal.submit("exit 0\n"))
    assert (await command(server.folder, "backup", str(tmp_path / "b")))[0] == 0
    note = json.loads(await asyncio.to_thread((tmp_path / "b" / "backup.json").read_text))
    assert note["jobs"] == 1
    await server.end()
    await asyncio.to_thread(destroy, server)
    copy = tmp_path / "b" / "db.sqlite"
    content = await asyncio.to_thread(copy.read_bytes)
    await asyncio.to_thread(copy.write_bytes, content[:5000] + b"x" * 5000 + content[10000:])
    status, told = await command(server.folder, "restore", str(tmp_path / "b"))
    assert status == 2, told
    assert not (server.folder / "db.sqlite").exists()
