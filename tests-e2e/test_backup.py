"""The commands backup, restore and check, also while the server is running."""

import asyncio
import contextlib
import json
import shutil
import signal
import sqlite3
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from harness import BIN, Portal, Service, StartClient, StartServer

in_folders = pytest.mark.parametrize("inline_limit", ["0"], ids=["in folders"])
"""Run a test with a server that stores files of any size in folders."""

AGREE = (0, "Database and files agree\n")


async def command(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run ``jo-server`` in a folder and return its exit status and output."""
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
    """Remove all files of a server."""
    for path in server.folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.asynccontextmanager
async def load(portal: Portal, acknowledged: dict[int, str]) -> AsyncIterator[None]:
    """Submit jobs of two users continuously within the block."""

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


async def wait_for_jobs(count: int, acknowledged: dict[int, str]) -> None:
    """Wait until ``count`` jobs are acknowledged."""
    async with asyncio.timeout(60):
        while len(acknowledged) < count:  # noqa: ASYNC110 (there is no event)
            await asyncio.sleep(0.02)


async def test_restore_backup_made_under_load_has_every_job(
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
        await wait_for_jobs(10, acknowledged)
        waiting = [await portal.submit("sleep 0.3; echo done > out\n", user=9) for _ in range(4)]
        before = dict(acknowledged)
        status, output = await command(server.folder, "backup", backup)
        assert status == 0, output
        after = max(acknowledged)
    await server.end(signal.SIGKILL)
    (server.folder / "db.sqlite").rename(tmp_path / "moved")
    assert "db.sqlite-wal exists" in (await command(server.folder, "restore", backup))[1]
    await asyncio.to_thread(destroy, server)

    status, output = await command(server.folder, "restore", backup)
    assert status == 0, output
    assert await command(server.folder, "check") == AGREE
    await server.start()
    for database in (tmp_path / "backup" / "db.sqlite", server.folder / "db.sqlite"):
        assert database.stat().st_mode & 0o777 == 0o600
    for job, word in before.items():
        assert (await portal.end_of(job))["status"] == "Completed"
        assert (await portal.results(job)).read("out").decode().strip() == word.upper()
    assert (await portal.end_of(failed))["message"] == "run.sh exited with code 3"
    assert (await portal.results(failed, "download_partial")).read("reason") == b"why\n"
    for job in waiting:
        assert (await portal.end_of(job))["status"] == "Completed"
    assert await portal.submit("exit 0\n") > after, "no id is used twice"
    status, output = await command(server.folder, "restore", backup)
    assert status == 2
    assert "move it and the data folder away first" in output


async def test_backup_while_jobs_are_cleaned_is_consistent(
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
    # After the restart the server cleans all jobs, while they are backed up.
    await server.end()
    server.settings["MAX_AGE"] = "0"
    _, results = await asyncio.gather(
        server.start(),
        asyncio.gather(
            *(command(server.folder, "backup", str(tmp_path / f"b{n}")) for n in range(3))
        ),
    )
    await server.end()
    for number, (status, output) in enumerate(results):
        assert status == 0, output
        assert "missing" not in output
        await asyncio.to_thread(destroy, server)
        status, output = await command(server.folder, "restore", str(tmp_path / f"b{number}"))
        assert status == 0, output
        assert await command(server.folder, "check") == AGREE


async def test_check_inconsistencies_are_found_and_repaired(
    start_client: StartClient, start_server: StartServer, session: aiohttp.ClientSession
) -> None:
    server = await start_server(await start_client(), INLINE_LIMIT="0")
    portal = Portal(server.url, session)
    jobs = [await portal.submit("echo x > out\n") for _ in range(5)]
    for job in jobs:
        await portal.end_of(job)
    await server.end()
    data, database = server.folder / "data", server.folder / "db.sqlite"

    def damage() -> None:
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

    await asyncio.to_thread(damage)
    status, output = await command(server.folder, "check")
    assert status == 1
    *wrong, history, usage = [line.split(":")[0] for line in output.splitlines()]
    assert wrong == [
        "Job 1 is Completed, and its files are gone",
        "Job 2 is Completed, and its output is gone",
        "Job 3 is Completed, and its output can't be read",
        "The folder 00000000-0000-4000-8000-000000000000 belongs to no job",
        "The upload half is incomplete",
        "Received results of job 4 are incomplete",
    ]
    assert history.startswith("Job 5 is Completed, and its history ends with ")
    assert usage == "The usage of user 1 is counted wrongly"
    status, output = await command(server.folder, "check", "--repair")
    assert (status, output.splitlines()[-1]) == (0, "8 repaired, 0 left")
    assert await command(server.folder, "check") == AGREE
    await server.start()
    assert (await portal.state(1))["status"] == "Cleaned"
    assert (await portal.results(4)).read("out") == b"x\n"


async def test_check_of_files_in_the_database_finds_and_repairs_what_is_wrong(
    start_client: StartClient, start_server: StartServer, session: aiohttp.ClientSession
) -> None:
    server = await start_server(await start_client())
    portal = Portal(server.url, session)
    large = "head -c 100000 /dev/urandom > out\n"
    jobs = [await portal.submit(script) for script in ("echo x > out\n", "exit 3\n", large, large)]
    for job in jobs:
        await portal.end_of(job)
    await server.end()
    assert await command(server.folder, "check") == AGREE
    assert len(list((server.folder / "data").glob("*-*"))) == 2, "the large results"
    waiting = await start_server("http://127.0.0.1:9")
    queued = await Portal(waiting.url, session).submit("exit 0\n")
    await waiting.end()

    def damage(database: Path, *statements: str) -> None:
        with contextlib.closing(sqlite3.connect(database)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    await asyncio.to_thread(
        damage,
        server.folder / "db.sqlite",
        "UPDATE job_results SET zip = x'504b' WHERE job_id = 1",
        "DELETE FROM job_results WHERE job_id = 2",
    )
    await asyncio.to_thread(shutil.rmtree, next((server.folder / "data").glob("*-*")))
    status, output = await command(server.folder, "check")
    assert status == 1
    assert [line.split(":")[0] for line in output.splitlines()][:2] == [
        "Job 1 is Completed, and its output can't be read",
        "Job 2 is Failed, and its output is gone",
    ]
    assert "is Completed, and its output is gone" in output, "of the removed folder"
    status, output = await command(server.folder, "check", "--repair")
    assert (status, output.splitlines()[-1]) == (0, "3 repaired, 0 left")
    assert await command(server.folder, "check") == AGREE
    await asyncio.to_thread(
        damage, waiting.folder / "db.sqlite", "UPDATE job_inputs SET files = x'00'"
    )
    status, output = await command(waiting.folder, "check")
    assert output.startswith(f"Job {queued} is Queued, and its files can't be read: ")
    assert ": the server ends the job, with the reason, when it needs them\n" in output


@pytest.mark.parametrize("inline_limit", ["0", "64kB"], ids=["folder", "database"])
async def test_export_writes_inputs_and_results_of_a_job(
    portal: Portal, server: Service, tmp_path: Path
) -> None:
    job = await portal.submit("cat 'in put/ä' > out\n", {"in put/ä": b"content"})
    await portal.end_of(job)
    target = tmp_path / "exported"
    status, output = await command(server.folder, "export", str(job), str(target))
    assert (status, output) == (0, f"{target}: input and results.zip of job {job}\n")
    assert (target / "input" / "in put" / "ä").read_bytes() == b"content"
    assert (target / "input" / "run.sh").exists()
    with zipfile.ZipFile(target / "results.zip") as archive:
        assert archive.read("out") == b"content"
    for arguments, reason in (
        ((str(job), str(target)), "already exists; each export needs a new folder"),
        (("99", str(tmp_path / "none")), "There is no job 99"),
    ):
        status, output = await command(server.folder, "export", *arguments)
        assert (status, output.count("\n")) == (2, 1)
        assert reason in output


async def test_repair_ended_job_without_inputs_keeps_its_output(
    start_client: StartClient, start_server: StartServer, session: aiohttp.ClientSession
) -> None:
    server = await start_server(await start_client(), INLINE_LIMIT="0")
    portal = Portal(server.url, session)
    good, broken = [await portal.submit("echo x > out\n") for _ in range(2)]
    for job in (good, broken):
        await portal.end_of(job)
    await server.end()

    def damage() -> None:
        with contextlib.closing(sqlite3.connect(server.folder / "db.sqlite")) as connection:
            uuids = [u for (u,) in connection.execute("SELECT uuid FROM jobs ORDER BY id")]
        first, second = (server.folder / "data" / uuid for uuid in uuids)
        (first / "input" / "run.sh").unlink()
        shutil.rmtree(second / "input")
        (second / "output-1.zip").write_bytes(b"PK no more")

    await asyncio.to_thread(damage)
    status, output = await command(server.folder, "check")
    assert status == 1
    assert output.startswith(f"Job {broken} is Completed, and its output can't be read: ")
    assert output.endswith(": with --repair the job would be marked as without output\n")
    assert output.count("\n") == 1, "the other job has no problem"
    status, output = await command(server.folder, "check", "--repair")
    assert (status, output.splitlines()[-1]) == (0, "1 repaired, 0 left")
    assert "the job is marked as without output" in output
    assert await command(server.folder, "check") == AGREE
    await server.start()
    assert (await portal.results(good)).read("out") == b"x\n"


async def test_repair_unreadable_output_is_left_unchanged(
    start_client: StartClient, start_server: StartServer, session: aiohttp.ClientSession
) -> None:
    server = await start_server(await start_client(), INLINE_LIMIT="0")
    portal = Portal(server.url, session)
    job = await portal.submit("echo x > out\n")
    await portal.end_of(job)
    await server.end()
    (results,) = (server.folder / "data").glob("*/output-1.zip")
    # Opening the file is an error, as on a failing disk or when another user owns it.
    results.rename(results.with_name("kept"))
    results.symlink_to(results.name)
    for arguments in (("check",), ("check", "--repair"), ("check", "--repair")):
        status, output = await command(server.folder, *arguments)
        assert status == 1
        assert "its output can't be read" in output
        assert ": nothing is changed; make sure that the user of jo-server can read it\n" in output
    results.with_name("kept").replace(results)
    assert await command(server.folder, "check") == AGREE
    await server.start()
    assert (await portal.results(job)).read("out") == b"x\n"


async def test_repair_more_histories_than_are_listed_are_completed(
    start_client: StartClient, start_server: StartServer, session: aiohttp.ClientSession
) -> None:
    server = await start_server(await start_client())
    portal = Portal(server.url, session)
    for job in [await portal.submit("exit 0\n") for _ in range(22)]:
        await portal.end_of(job)
    await server.end()

    def damage() -> None:
        database = server.folder / "db.sqlite"
        with contextlib.closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("DELETE FROM job_events WHERE to_status = 'Completed'")

    await asyncio.to_thread(damage)
    _, output = await command(server.folder, "check")
    assert "The histories of 2 more jobs are wrong" in output
    status, output = await command(server.folder, "check", "--repair")
    assert (status, output.splitlines()[-1]) == (0, "21 repaired, 0 left")
    assert await command(server.folder, "check") == AGREE


@in_folders
async def test_job_folder_removed_job_ends_or_can_be_terminated(
    portal: Portal, server: Service
) -> None:
    data = server.folder / "data"
    finishing, stuck = [
        await portal.submit(f"while test ! -e {data}/go; do sleep 0.05; done\n{then}\n")
        for then in ("exit 0", "sleep 300")
    ]
    for job in (finishing, stuck):
        await portal.until(job, "Running")
    for folder in data.glob("*-*"):
        await asyncio.to_thread(shutil.rmtree, folder)
    assert (await portal.terminate(stuck))[0] == 200
    (data / "go").touch()
    ended = await portal.end_of(finishing)
    assert ended["status"] == "Failed"
    assert "Its folder on the server is gone" in ended["message"]


@in_folders
async def test_backup_wrong_or_incomplete_data_folder_fails(
    portal: Portal, server: Service, tmp_path: Path
) -> None:
    job = await portal.submit("echo x > out\n")
    await portal.end_of(job)
    elsewhere = ("--data-path", str(tmp_path / "none"))
    status, output = await command(server.folder, *elsewhere, "backup", str(tmp_path / "b1"))
    assert (status, output.count("\n")) == (2, 1)
    assert "none', which does not exist" in output
    assert not (tmp_path / "b1").exists()
    await asyncio.to_thread(shutil.rmtree, next((server.folder / "data").glob("*-*")))
    status, output = await command(server.folder, "backup", str(tmp_path / "b2"))
    assert status == 1
    assert f"Job {job} is Completed and" in output


async def test_check_of_a_running_server_finds_nothing(portal: Portal, server: Service) -> None:
    acknowledged: dict[int, str] = {}
    async with load(portal, acknowledged):
        await wait_for_jobs(4, acknowledged)
        assert await command(server.folder, "check") == AGREE
        status, output = await command(server.folder, "check", "--repair")
        assert status == 2
        assert "Another jo-server uses DATA_PATH" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("backup", "there"), "already exists"),
        (("restore", "nowhere"), "jo-server backup has made: there is no such folder\n"),
        (("restore", "there"), "jo-server backup has made: it has no backup.json\n"),
        (("--db-path", "nowhere", "check"), "nowhere', which does not exist; set DB_PATH"),
        (("--db-path", "nowhere", "export", "1", "new"), "which does not exist; set DB_PATH"),
        (("--db-path", "there/db", "backup", "new"), "which does not exist; set DB_PATH"),
        (("--db-path", "there", "check"), "can't be used"),
        (("--data-path", "nowhere", "check"), "which does not exist"),
    ],
)
async def test_command_fails_with_the_reason_in_one_line(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    for name in ("there", "data"):
        (tmp_path / name).mkdir()
    (tmp_path / "db.sqlite").touch()
    status, output = await command(tmp_path, *arguments)
    assert status == 2, output
    assert message in output
    assert output.count("\n") == 1
    assert not (tmp_path / "new").exists()


async def test_restore_damaged_database_fails(
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
    status, output = await command(server.folder, "restore", str(tmp_path / "b"))
    assert status == 2, output
    assert not (server.folder / "db.sqlite").exists()


@pytest.mark.parametrize("inline_limit", ["0", "64kB"], ids=["folder", "database"])
async def test_check_of_digests_finds_a_result_that_changed_on_the_disk(
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    inline_limit: str,
) -> None:
    server = await start_server(await start_client(), INLINE_LIMIT=inline_limit)
    portal = Portal(server.url, session)
    jobs = [await portal.submit(f"echo {number} > out\n") for number in range(2)]
    for job in jobs:
        await portal.end_of(job)
    assert await command(server.folder, "check", "--digests") == AGREE

    def damage() -> None:
        for path in sorted((server.folder / "data").glob("*/output-1.zip"))[:1]:
            path.write_bytes(changed(path.read_bytes()))
        with contextlib.closing(sqlite3.connect(server.folder / "db.sqlite")) as database, database:
            for (content,) in database.execute("SELECT zip FROM job_results WHERE job_id = 1"):
                database.execute(
                    "UPDATE job_results SET zip = ? WHERE job_id = 1", (changed(content),)
                )

    def changed(content: bytes) -> bytes:
        return content[:40] + bytes([content[40] ^ 1]) + content[41:]

    await asyncio.to_thread(damage)
    assert await command(server.folder, "check") == AGREE
    status, output = await command(server.folder, "check", "--digests")
    assert status == 1
    assert output.count("\n") == 1
    assert "and its output is not what was received: nothing is changed; take" in output
