"""The command ``jo-server import``: jobs of the original, in every state."""

import asyncio
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import zipfile
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from harness import BIN, Portal, StartClient, StartServer
from original_installation import OriginalInstallation, zipped

STATES = (
    *("queued", "processing", "submitted", "running"),
    *("completed", "failed", "invalid", "killed", "cleaned"),
)

AGREE = (0, "Database and files agree\n")


@pytest.fixture
def original(tmp_path: Path) -> OriginalInstallation:
    return OriginalInstallation(tmp_path / "original")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The folder with DB_PATH and DATA_PATH of jo-server."""
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


async def command(here: Path, *arguments: str | Path, **settings: str) -> tuple[int, str]:
    """Run ``jo-server`` in a folder and return its exit status and output."""
    process = await asyncio.create_subprocess_exec(
        BIN / "jo-server",
        *arguments,
        cwd=here,
        env={
            "SERVICE_EXAMPLE_UPLOAD_URL": "http://127.0.0.1:9/submit",
            "SERVICE_EXAMPLE_DOWNLOAD_URL": "http://127.0.0.1:9/retrieve",
            **settings,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def import_from(
    original: OriginalInstallation, here: Path, *options: str, **settings: str
) -> tuple[int, str]:
    """Run ``jo-server import``."""
    return await command(
        here, "import", original.database, "--data", original.data, *options, **settings
    )


def rows(here: Path) -> dict[int, dict[str, Any]]:
    """Return the jobs of jo-server by id."""
    with closing(sqlite3.connect(here / "db.sqlite")) as connection:
        connection.row_factory = sqlite3.Row
        return {row["id"]: dict(row) for row in connection.execute("SELECT * FROM jobs")}


def events(here: Path) -> int:
    """Count the events of all jobs."""
    with closing(sqlite3.connect(here / "db.sqlite")) as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM job_events")
        return int(count)


def stored(here: Path) -> dict[str, bytes]:
    """Return all files of the data folder by path."""
    data = here / "data"
    return {str(p.relative_to(data)): p.read_bytes() for p in data.rglob("*") if p.is_file()}


async def test_import_keeps_ids_users_times_states_and_files(
    original: OriginalInstallation, here: Path
) -> None:
    jobs = {state: original.add(state, user=number) for number, state in enumerate(STATES)}
    original.execute("UPDATE sqlite_sequence SET seq = 70")  # jobs that were removed since
    before = original.digest()
    status, output = await import_from(original, here)
    assert status == 0, output
    assert output == (
        "9 jobs imported (1 Cleaned, 1 Completed, 1 Failed, 1 Invalid, 1 Killed, 2 Queued,"
        " 1 Running, 1 Submitted); 0 as before\n"
    )
    assert original.digest() == before
    assert await command(here, "check") == AGREE
    found = rows(here)
    assert {state: found[job]["status"] for state, job in jobs.items()} == {
        **{state: state.capitalize() for state in STATES},
        "processing": "Queued",
    }
    for number, state in enumerate(STATES):
        row = found[jobs[state]]
        assert (row["user_id"], row["service"]) == (number, "example")
        assert row["created_at"] == 1795917360
        assert row["message"].startswith("Imported from the original job-orchestrator")
    assert found[jobs["running"]]["dest_id"] == jobs["running"] + 100
    assert found[jobs["running"]]["client_url"] == "http://127.0.0.1:9/submit"
    completed = found[jobs["completed"]]
    folder = here / "data" / completed["uuid"]
    assert (folder / "input" / "in.txt").read_bytes() == b"hello"
    assert zipfile.ZipFile(folder / "output-1.zip").read("out.txt") == b"hello"
    assert completed["output_bytes"] == (folder / "output-1.zip").stat().st_size
    assert (folder / "output-1.zip").stat().st_nlink == 2
    with closing(sqlite3.connect(here / "db.sqlite")) as connection:
        assert (
            connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'").fetchone()[0]
            == 70
        )


async def test_import_without_a_change_adds_nothing(
    original: OriginalInstallation, here: Path
) -> None:
    for state in STATES:
        original.add(state)
    original.add("queued", files={"bad\\name": b""})
    original.add("completed", with_folder=False)
    await import_from(original, here)
    before = rows(here), events(here), stored(here)
    status, output = await import_from(original, here, "--json")
    assert status == 1
    report = json.loads(output)
    assert (report["imported"], report["unchanged"]) == ({}, 11)
    assert (rows(here), events(here), stored(here)) == before


async def test_import_again_takes_what_has_changed_since(
    original: OriginalInstallation, here: Path
) -> None:
    queued, running, cleaned, same = (
        original.add(state) for state in ("queued", "running", "completed", "queued")
    )
    await import_from(original, here)
    original.ends(queued, {"out": b"1"})
    original.ends(running, {"out": b"2"})
    original.execute("UPDATE jobs SET status = 'cleaned' WHERE id = ?", cleaned)
    new = original.add("queued")
    status, output = await import_from(original, here, "--json")
    assert status == 0, output
    assert json.loads(output) == {
        "imported": {"Cleaned": 1, "Completed": 2, "Queued": 1},
        "unchanged": 1,
        "problems": [],
    }
    found = rows(here)
    assert [found[job]["status"] for job in (queued, running, cleaned, same, new)] == [
        *("Completed", "Completed", "Cleaned", "Queued", "Queued")
    ]
    assert await command(here, "check") == AGREE
    for job, content in ((queued, b"1"), (running, b"2")):
        path = here / "data" / found[job]["uuid"] / "output-1.zip"
        assert zipfile.ZipFile(path).read("out") == content


async def test_import_reports_what_is_wrong_and_takes_the_others(
    original: OriginalInstallation, here: Path
) -> None:
    good = original.add("completed", files={"données é.txt": b"x", "output.zip": b"an input"})
    upload = original.add("queued", files={"output.zip": b"an input"})
    no_results = original.add("completed")
    (original.folder_of(no_results) / "output.zip").unlink()
    broken = original.add("completed")
    (original.folder_of(broken) / "output.zip").write_bytes(b"PK broken")
    no_folder = original.add("queued", with_folder=False)
    failed = original.add("failed", with_folder=False)
    no_script = original.add("queued")
    (original.folder_of(no_script) / "run.sh").unlink()
    link = original.add("queued")
    (original.folder_of(link) / "secret").symlink_to("/etc/passwd")
    foreign = original.add("queued", service="gone")
    odd = original.add("exploded")
    user = original.add("failed", user=2**40)
    place = original.add("failed")
    original.execute("UPDATE jobs SET loc = '/etc' WHERE id = ?", place)
    time = original.add("failed", created_at="yesterday")
    status, output = await import_from(original, here, "--json")
    assert status == 1
    report = json.loads(output)
    assert report["imported"] == {"Cleaned": 1, "Completed": 1, "Failed": 6, "Queued": 2}
    problems = "\n".join(report["problems"])
    for job, text in {
        no_results: "is Cleaned: its results, ",
        broken: "is Failed: its results, ",
        no_folder: "is Failed: its folder ",
        failed: "is Failed: its folder ",
        no_script: "is Failed: it has no run.sh",
        link: "is Failed: 'secret' is not a regular file",
        odd: "was left out: its state is 'exploded'",
        user: "was left out: its user is 1099511627776",
        place: "was left out: '/etc' is no folder of a job",
    }.items():
        assert f"Job {job} {text}" in problems
    assert "1 job waits for the service 'gone', which is not configured" in problems
    assert len(report["problems"]) == 10
    found = rows(here)
    assert set(found) == {
        *(good, upload, no_results, broken, no_folder, failed, no_script, link, foreign, time)
    }
    files = stored(here)
    assert files[f"{found[good]['uuid']}/input/données é.txt"] == b"x"
    assert f"{found[good]['uuid']}/input/output.zip" not in files
    assert files[f"{found[upload]['uuid']}/input/output.zip"] == b"an input"
    assert "it can't be run: it has no run.sh" in found[no_script]["message"]
    assert await command(here, "check") == AGREE


def _put_hostile_things(
    original: OriginalInstallation, secret: Path, jobs: list[int], deep: int
) -> None:
    linked, fifo, link = jobs
    secret.mkdir()
    (secret / "run.sh").write_text("echo secret")
    (secret / "output.zip").write_bytes(zipped({"secret": b"secret"}))
    shutil.rmtree(original.folder_of(linked))
    original.folder_of(linked).symlink_to(secret)
    for job in (fifo, link):
        (original.folder_of(job) / "output.zip").unlink()
    os.mkfifo(original.folder_of(fifo) / "output.zip")
    (original.folder_of(link) / "output.zip").symlink_to(secret / "output.zip")
    subprocess.run(["mkdir", "-p", original.folder_of(deep) / ("d/" * 1200)], check=True)


def remove_tree(folder: Path) -> None:
    """Remove a tree of any depth."""
    subprocess.run(["rm", "-rf", folder], check=True)


async def test_import_follows_no_links_opens_no_fifo_and_bounds_the_depth(
    original: OriginalInstallation, here: Path, tmp_path: Path
) -> None:
    jobs = [original.add("completed") for _ in range(3)]
    deep = original.add("queued")
    await asyncio.to_thread(_put_hostile_things, original, tmp_path / "secret", jobs, deep)
    try:
        status, output = await asyncio.wait_for(import_from(original, here, "--json"), 60)
    finally:
        await asyncio.to_thread(remove_tree, original.folder_of(deep))
    assert status == 1, output
    problems = "\n".join(json.loads(output)["problems"])
    for job, text in {
        jobs[0]: "was left out: its files can't be read: ",
        jobs[1]: "is Cleaned: its results, ",
        jobs[2]: "is Cleaned: its results, ",
        deep: "is Failed: Invalid file name ",
    }.items():
        assert f"Job {job} {text}" in problems
    assert "it is longer than 1024 bytes" in problems
    assert all(b"secret" not in content for content in stored(here).values())


async def test_import_from_a_wrong_folder_is_corrected_by_another_import(
    original: OriginalInstallation, here: Path
) -> None:
    jobs = [original.add(state) for state in ("completed", "queued", "cleaned")]
    status, _ = await command(here, "import", original.database)
    assert status == 1
    assert [rows(here)[job]["status"] for job in jobs] == ["Cleaned", "Failed", "Cleaned"]
    status, output = await import_from(original, here)
    assert status == 0, output
    assert [rows(here)[job]["status"] for job in jobs] == ["Completed", "Queued", "Cleaned"]
    assert await command(here, "check") == AGREE


@pytest.mark.slow
async def test_import_killed_at_any_moment_and_repeated_loses_and_doubles_nothing(
    original: OriginalInstallation, here: Path, tmp_path: Path
) -> None:
    for number in range(1200):
        original.add(STATES[number % len(STATES)], user=number % 7)
    chance = random.Random(1)  # noqa: S311 (chosen for the test)
    kills = 0
    while kills < 20:
        point = chance.choice(["import.files-taken", "import.rows-written"])
        nth = chance.randint(1, 300) if point == "import.files-taken" else chance.randint(1, 3)
        status, output = await import_from(original, here, JO_FAULT=f"{point}:{nth}")
        if status == -signal.SIGKILL:
            kills += 1
            continue
        assert status == 0, output
        # All is here: begin again, with a database that has nothing.
        await asyncio.to_thread(_remove, here)
    assert (await import_from(original, here))[0] == 0
    assert await command(here, "check") == AGREE
    at_once = tmp_path / "at-once"
    at_once.mkdir()
    assert (await import_from(original, at_once))[0] == 0
    assert stored(here) == stored(at_once)
    assert {job: row["status"] for job, row in rows(here).items()} == {
        job: row["status"] for job, row in rows(at_once).items()
    }
    assert events(here) == events(at_once) == 1200


def _remove(here: Path) -> None:
    for path in here.glob("db.sqlite*"):
        path.unlink()


async def test_dry_run_writes_nothing_and_says_what_would_be_imported(
    original: OriginalInstallation, here: Path
) -> None:
    original.add("completed")
    original.add("queued", with_folder=False)
    status, output = await import_from(original, here, "--dry-run")
    assert status == 1
    assert "2 jobs would be imported (1 Completed, 1 Failed); 0 as before\n" in output
    assert os.listdir(here) == []  # noqa: PTH208


async def test_import_never_replaces_a_job_of_jo_server(
    original: OriginalInstallation, here: Path
) -> None:
    old = original.add("completed")
    await import_from(original, here)
    with closing(sqlite3.connect(here / "db.sqlite")) as connection, connection:
        connection.execute("UPDATE jobs SET uuid = ?", ("0" * 36,))
    status, output = await import_from(original, here)
    assert status == 1
    assert f"Job {old} was left out: another job has its id here" in output


@pytest.mark.parametrize("mistake", ["client", "jo-server", "text", "missing", "same", "data"])
async def test_import_from_something_else_is_refused_with_the_reason(
    original: OriginalInstallation, here: Path, mistake: str
) -> None:
    database, data, reason = original.database, original.data, ""
    match mistake:
        case "client":
            original.execute("DROP TABLE jobs")
            original.execute("CREATE TABLE payloads (id INTEGER PRIMARY KEY, loc TEXT)")
            reason = "it is that of a client; give the DB_PATH of the server"
        case "jo-server":
            await import_from(original, here)
            database = database.parent / "jo.sqlite"
            (here / "db.sqlite").rename(database)
            reason = "it is one of jo-server"
        case "text":
            database = original.data / "text"
            database.write_text("no database" * 100)
            reason = "can't be read: file is not a database"
        case "missing":
            database = original.data / "missing"
            reason = "can't be read"
        case "same":
            database = here / "db.sqlite"
            reason = "OLD_DB is DB_PATH; set DB_PATH to a new file"
        case "data":
            data = original.data / "missing"
            reason = "which is no folder"
    status, output = await command(here, "import", database, "--data", data)
    assert status == 2
    assert reason in output
    assert "Traceback" not in output


async def test_import_from_a_database_whose_writer_was_killed_undoes_that_in_a_copy(
    original: OriginalInstallation, here: Path
) -> None:
    job = original.add("queued")
    writer = (
        "import sqlite3, os, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA cache_size = 1')\n"
        "c.execute('BEGIN EXCLUSIVE')\n"
        "c.execute(\"UPDATE jobs SET status = 'killed'\")\n"
        "for n in range(2000):\n"
        '    c.execute("INSERT INTO jobs (user_id, service, status, loc) "\n'
        "              \"VALUES (1, 'x', 'y', 'z')\")\n"
        "os.kill(os.getpid(), 9)\n"
    )
    process = await asyncio.create_subprocess_exec("python3", "-c", writer, original.database)
    assert await process.wait() == -signal.SIGKILL
    assert (original.data.parent / "db.sqlite-journal").exists()
    before = original.digest()
    status, output = await import_from(original, here)
    assert status == 0, output
    assert {number: row["status"] for number, row in rows(here).items()} == {job: "Queued"}
    assert original.digest() == before


async def test_start_with_the_database_of_the_original_names_the_command(
    original: OriginalInstallation, here: Path
) -> None:
    original.add("queued")
    before = original.digest()
    status, output = await command(here, "--port", "0", DB_PATH=str(original.database))
    assert status == 2
    assert "the database of the original job-orchestrator" in output
    assert f"jo-server import {original.database} --data FOLDER" in output
    assert original.digest() == before


class OriginalClient:
    """Client of the original, which answers for payloads by their id alone."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/retrieve/{id}", self.retrieve)
        app.router.add_get("/load", self.load)
        return app

    async def retrieve(self, request: web.Request) -> web.Response:
        self.asked.append(int(request.match_info["id"]))
        if self.asked.count(self.asked[-1]) < 3:
            payload = {"id": self.asked[-1], "status": "Running", "loc": "x", "input": {}}
            return web.json_response(payload)
        return web.Response(body=zipped({"out": b"there"}), content_type="application/zip")

    async def load(self, request: web.Request) -> web.Response:
        return web.json_response(1.0)


@pytest.fixture
async def original_client() -> AsyncIterator[str]:
    async with TestServer(OriginalClient().app()) as server:
        yield str(server.make_url("")).rstrip("/")


async def test_imported_jobs_are_served_asked_for_and_run(
    original: OriginalInstallation,
    original_client: str,
    here: Path,
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
) -> None:
    running = original.add("running", service="old")
    completed, failed = original.add("completed"), original.add("failed")
    queued = [original.add("queued", files={"in.txt": b"%d" % number}) for number in range(3)]
    client = await start_client()
    settings = {
        "SERVICE_OLD_UPLOAD_URL": f"{original_client}/submit",
        "SERVICE_OLD_DOWNLOAD_URL": f"{original_client}/retrieve",
        "DB_PATH": str(here / "db.sqlite"),
        "DATA_PATH": str(here / "data"),
        "MAX_AGE": "1000d",
    }
    status, output = await import_from(original, here, **settings)
    assert status == 0, output
    portal = Portal((await start_server(client, **settings)).url, session)
    assert (await portal.results(completed)).read("out.txt") == b"hello"
    assert (await portal.state(failed))["message"] == (
        "Imported from the original job-orchestrator, where it was Failed; it has not recorded why"
    )
    for number, job in enumerate(queued):
        await portal.until(job, "Completed")
        assert (await portal.results(job)).read("out.txt") == b"%d" % number
    await portal.until(running, "Completed")
    assert (await portal.results(running)).read("out") == b"there"
    assert await portal.submit("exit 0\n") == queued[-1] + 1
    async with session.get(f"{portal.url}/jobs/{completed}") as response:
        job = await response.json()
    assert (job["status"], job["has_output"]) == ("Completed", True)
    assert job["created_at"] == "2026-11-29T01:56:00.000Z"


async def test_commands_of_the_migration_page_switch_to_jo_server(
    original: OriginalInstallation,
    here: Path,
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
) -> None:
    page = (Path(__file__).parents[1] / "docs" / "migrating.md").read_text("utf-8")
    first, second, start = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert start == "jo-server\n"
    jobs = [original.add(state) for state in ("completed", "queued", "failed")]
    settings = {
        "DB_PATH": str(here / "db.sqlite"),
        "DATA_PATH": str(here / "data"),
        "MAX_AGE": "1000d",
    }
    client = await start_client()

    async def shell(text: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *("bash", "-euc", text),
            env={
                "PATH": f"{BIN}:{os.environ['PATH']}",
                "OLD_DB": str(original.database),
                "OLD_DATA": str(original.data),
                "SERVICE_EXAMPLE_UPLOAD_URL": f"{client.url}/submit",
                "SERVICE_EXAMPLE_DOWNLOAD_URL": f"{client.url}/retrieve",
                **settings,
            },
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0
        return output.decode()

    assert (await shell(first)).startswith("3 jobs imported")
    jobs.append(original.add("queued"))
    assert await shell(second) == "1 jobs imported (1 Queued); 3 as before\n"
    portal = Portal((await start_server(client, **settings)).url, session)
    assert [(await portal.end_of(job))["status"] for job in jobs] == [
        *("Completed", "Completed", "Failed", "Completed")
    ]
    for job in (jobs[0], jobs[1], jobs[3]):
        assert (await portal.results(job)).read("out.txt") == b"hello"


async def test_import_while_jo_server_runs_is_refused(
    original: OriginalInstallation, here: Path, start_server: StartServer
) -> None:
    settings = {"DB_PATH": str(here / "db.sqlite"), "DATA_PATH": str(here / "data")}
    await start_server("http://127.0.0.1:9", **settings)
    status, output = await import_from(original, here, **settings)
    assert status == 2
    assert "Another jo-server uses DATA_PATH" in output


@pytest.mark.slow
async def test_import_of_a_hundred_thousand_rows_takes_minutes_at_most(
    original: OriginalInstallation, here: Path
) -> None:
    with closing(sqlite3.connect(original.database)) as connection, connection:
        connection.executemany(
            "INSERT INTO jobs (user_id, service, status, loc) VALUES (1, 'example', 'cleaned', ?)",
            ((f"/opt/data/00000000-0000-4000-8000-{number:012x}",) for number in range(100_000)),
        )
    async with asyncio.timeout(240):
        status, output = await import_from(original, here)
    assert status == 0, output
    assert output.startswith("100000 jobs imported")
