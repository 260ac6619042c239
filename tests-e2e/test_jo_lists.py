"""Lists of jo: jobs, services and clients, once and live."""

import asyncio
import contextlib
import json
import os
import pty
import signal
import termios
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from harness import StartClient, StartServer, eventually
from jo_command import SUBMIT, TIMEOUT_S, Jo, read_all, read_until, write
from job_orchestrator.sdk import AsyncClient


async def test_list_is_narrowed_by_the_environment_and_says_so(jo: Jo) -> None:
    write(jo, "true\n")
    for user in ("1", "2"):
        await jo("submit", "--service", "example", "--user", user, "--tag", f"t{user}", "run.sh")
        await jo("wait", user)
    jo.env |= {"JO_USER": "1", "JO_SERVICE": "example"}
    narrowed = await jo("list")
    header, *rows = narrowed.out.splitlines()
    assert "TAG" in header.split()
    assert [(row.split()[0], row.split()[-1]) for row in rows] == [("1", "t1")]
    assert narrowed.err == (
        "Only jobs of user 1 (JO_USER) and of service example (JO_SERVICE). "
        "For others: --all-users, --all-services\n"
    )
    everything = await jo("list", "--all-users", "--all-services")
    assert [row.split()[0] for row in everything.out.splitlines()[1:]] == ["2", "1"]
    assert everything.err == ""
    assert (await jo("list", "--user", "2", "--service", "example")).err == ""
    assert len((await jo("list", "--json")).json) == 1
    jo.env["JO_SERVICE"] = "nosuch"
    assert (await jo("list", "--all-users")).code == 65
    twice = await jo("list", "--user", "1", "--all-users")
    assert (twice.code, "--user and --all-users" in twice.err) == (2, True)


async def test_unknown_service_is_answered_with_those_that_exist(jo: Jo) -> None:
    write(jo, "true\n")
    expected = "jo: Invalid service 'nosuch'; the services of this server: example\n"
    for args in (
        ("submit", "--user", "1", "run.sh", "--service", "nosuch"),
        ("list", "--service", "nosuch"),
        ("list", "--service", "nosuch", "--watch", "--json"),
    ):
        run = await jo(*args)
        assert (run.code, run.err) == (65, expected)
    assert (await jo("list", "--service", "EXAMPLE")).out == "No jobs\n"


async def test_list_filters_jobs_and_prints_json_or_a_table(jo: Jo) -> None:
    write(jo, "true\n")
    for user, tag in (("1", "a"), ("1", "b"), ("2", "a")):
        await jo("submit", "--service", "example", "--user", user, "--tag", tag, "run.sh", "--wait")
    listed = (await jo("list", "--json", "--user", "1", "--status", "completed")).json
    assert [job["id"] for job in listed] == [2, 1]
    for states in (
        ("--status", "COMPLETED,failed"),
        ("--status", "failed", "--status", "Completed"),
    ):
        assert len((await jo("list", "--json", *states)).json) == 3
    assert (await jo("list", "--json", "--status", "failed,killed")).json == []
    odd = await jo("list", "--status", "completed,done")
    assert (odd.code, "'done' is not a state; the states are: " in odd.err) == (2, True)
    assert [job["id"] for job in (await jo("list", "--json", "--tag", "a", "-n", "1")).json] == [3]
    table = (await jo("list")).out.splitlines()
    assert table[0].split()[:4] == ["ID", "USER", "SERVICE", "STATUS"]
    assert [line.split()[0] for line in table[1:]] == ["3", "2", "1"]
    assert (await jo("list", "--user", "9")).out == "No jobs\n"


async def test_watched_list_shows_each_change_of_the_jobs_that_match(jo: Jo) -> None:
    write(jo, "true\n")
    watching = await jo.start("list", "--watch", "--json", "--user", "1", "--tag", "mine")
    assert watching.stdout is not None
    seen: list[dict[str, Any]] = []
    while not seen:  # changes before the stream is open are not shown
        await jo(*SUBMIT, "--tag", "other", "run.sh", "--wait")
        await jo(*SUBMIT, "--tag", "mine", "run.sh", "--wait")
        with contextlib.suppress(TimeoutError):
            seen.append(json.loads(await asyncio.wait_for(watching.stdout.readline(), 1)))
    while seen[-1]["status"] != "Completed":
        seen.append(json.loads(await asyncio.wait_for(watching.stdout.readline(), TIMEOUT_S)))
    assert {(job["id"], job["tag"]) for job in seen} == {(seen[0]["id"], "mine")}
    watching.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(watching.communicate(), TIMEOUT_S)
    assert (watching.returncode, b"Traceback" in err) == (130, False)


async def test_watched_list_in_a_pipe_is_a_table_and_a_line_for_each_change(jo: Jo) -> None:
    write(jo, "true\n")
    await jo(*SUBMIT, "run.sh", "--wait")
    watching = await jo.start("list", "--watch")
    assert watching.stdout is not None
    table = [await asyncio.wait_for(watching.stdout.readline(), TIMEOUT_S) for _ in range(2)]
    assert [line.split()[0] for line in table] == [b"ID", b"1"]
    await jo(*SUBMIT, "run.sh", "--name", "next [one]", "--wait")
    lines = [await asyncio.wait_for(watching.stdout.readline(), TIMEOUT_S)]
    while b"Completed" not in lines[-1]:
        lines.append(await asyncio.wait_for(watching.stdout.readline(), TIMEOUT_S))
    assert b"Job 2 of user 1 (example, next [one]) is Queued" in lines[0]
    watching.send_signal(signal.SIGINT)
    out, _ = await asyncio.wait_for(watching.communicate(), TIMEOUT_S)
    assert (watching.returncode, out) == (130, b"")


async def test_watched_list_is_requested_after_its_stream_is_open(jo: Jo) -> None:
    asked: list[str] = []
    listed = asyncio.Event()

    async def events(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await listed.wait()
        return response

    async def jobs(request: web.Request) -> web.Response:
        asked.append(request.path)
        listed.set()
        return web.json_response({"id": 0, "status": "Failed", "message": "enough"}, status=400)

    app = web.Application()
    app.add_routes([web.get("/events", events), web.get("/jobs", jobs)])
    async with TestServer(app) as server:
        run = await jo("list", "--watch", "--url", str(server.make_url("")))
    assert asked == ["/events", "/jobs"]
    assert (run.code, run.err) == (65, "jo: enough\n")


async def test_watched_list_in_a_terminal_is_a_table_that_follows_the_jobs(jo: Jo) -> None:
    write(jo, "true\n")
    ours, theirs = pty.openpty()
    watching = await jo.start("list", "--watch", stdout=theirs)
    os.close(theirs)
    shown = asyncio.create_task(asyncio.to_thread(read_until, ours, b"Completed"))
    while not shown.done():  # changes before the stream is open are not shown
        await jo(*SUBMIT, "run.sh", "--wait")
        await asyncio.wait({shown}, timeout=1)
    assert b"STATUS" in await shown
    watching.send_signal(signal.SIGINT)
    await asyncio.to_thread(read_all, ours)
    assert await asyncio.wait_for(watching.wait(), TIMEOUT_S) == 130


async def test_services_and_clients_are_listed(jo: Jo) -> None:
    assert (await jo("services", "--json")).json[0]["name"] == "example"
    assert "example" in (await jo("services")).out
    [client] = (await jo("clients", "--json")).json
    assert client["url"].endswith("/submit")
    assert (
        client["url"].removeprefix("http://").removesuffix("/submit") in (await jo("clients")).out
    )
    assert (await jo("top")).code == 65


async def test_unreachable_client_is_listed_without_its_last_report(
    start_client: StartClient, start_server: StartServer, tmp_path: Path
) -> None:
    client = await start_client()
    server = await start_server(client)

    async with AsyncClient(server.url) as api:

        async def reported() -> bool:
            return (await api.clients())[0].slots == 10

        async def gone() -> bool:
            return (await api.clients())[0].state == "unreachable"

        await eventually(reported)
        await client.end(signal.SIGKILL)
        await eventually(gone)
        [shown] = await api.clients()
    assert (shown.slots, shown.running, shown.waiting, shown.cpu, shown.memory) == (None,) * 5
    row = (await Jo(server.url, tmp_path)("clients")).out.splitlines()[1]
    assert row.split()[1:6] == ["unreachable", "-", "-", "-", "-"]


async def test_q_ends_the_live_display_and_restores_the_terminal(jo: Jo) -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    process = await jo.start("top", stdin=theirs, stdout=theirs, stderr=theirs)
    try:
        await asyncio.to_thread(read_until, ours, b"q ends")
        os.write(ours, b"xq")
        assert await asyncio.wait_for(process.wait(), TIMEOUT_S) == 0
        assert termios.tcgetattr(theirs) == before
    finally:
        os.close(theirs)
        os.close(ours)
