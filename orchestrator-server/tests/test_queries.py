"""Queries: lists, details, services, clients, statistics, and the fields of log records."""

import json
import logging
import re
import time
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from fake_client import FakeClient, StartClient
from job_orchestrator.common.logs.context import AddFields
from job_orchestrator.common.logs.formatters import JsonFormatter, TextFormatter
from job_orchestrator.common.protocol.sse import read_events
from job_orchestrator.common.runtime.backoff import Backoff
from job_orchestrator.common.status import JobStatus, PayloadStatus
from job_orchestrator.server import keys
from job_orchestrator.server.jobs.statistics import JobStatistics
from job_orchestrator.server.store.lists import Times
from running_server import Server, StartServer, tuned

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


async def get(server: Server, path: str, status: int = 200) -> Any:
    async with server.http.get(path) as response:
        assert response.status == status, await response.text()
        return await response.json()


async def completed(server: Server, client: FakeClient, **kwargs: Any) -> int:
    job = await server.submit(**kwargs)
    payload = await client.next_payload()
    await server.until(job, "Submitted")
    client.report(payload, PayloadStatus.RUNNING)
    await server.until(job, "Running")
    client.complete(payload, **{"out.txt": "x" * 10, "d/y": "z"})
    assert (await server.ended(job))[0] == "Completed"
    return job


async def test_job_completed_has_all_fields_and_its_history(
    server: Server, client: FakeClient
) -> None:
    job = await get(server, f"/jobs/{await completed(server, client, user=7)}")
    history = job.pop("history")
    for name in ("created_at", "started_at", "ended_at"):
        assert TIME.fullmatch(job.pop(name))
    assert 0 <= job.pop("ran_s") < 60
    assert job == {
        "id": 1,
        "user_id": 7,
        "service": "example",
        "status": "Completed",
        "message": "",
        "name": "",
        "tag": "",
        "priority": 0,
        "attempt": 1,
        "exit_code": 0,
        "client": server.rows("SELECT client_url FROM jobs")[0][0],
        "time_limit_s": None,
        "has_output": True,
        "output_bytes": len(client.results[1]),
        "queue": None,
        "failures": 0,
        "held": False,
        "cpus": 0.0,
        "memory_bytes": 0,
        "gpus": 0,
        "max_attempts": 3,
        "outputs": [],
        "results": "all",
        "waiting": None,
        "after": [],
        "afterany": [],
    }
    states = ["Queued", "Processing", "Submitted", "Running", "Completed"]
    assert [step["to"] for step in history] == states
    assert [step["from"] for step in history] == [None, *states[:-1]]
    assert all(TIME.fullmatch(step["at"]) and step["seconds"] >= 0 for step in history)
    assert [step["why"] for step in history[1:4]] == [
        "Being sent to a machine",
        "Waits for a free slot on a machine",
        "run.sh is executing",
    ]


async def test_files_completed_job_lists_paths_and_sizes(
    server: Server, client: FakeClient
) -> None:
    job = await completed(server, client)
    assert await get(server, f"/jobs/{job}/files") == {
        "files": [{"path": "out.txt", "size": 10}, {"path": "d/y", "size": 1}],
        "truncated": False,
    }


async def test_files_unknown_job_or_no_output_is_a_404(idle_server: Server) -> None:
    job = await idle_server.submit()
    assert "no output" in (await get(idle_server, f"/jobs/{job}/files", 404))["message"]
    for path in ("/jobs/9", "/jobs/9/files"):
        assert (await get(idle_server, path, 404))["message"] == "Job 9 not found in the database"


async def test_job_queued_has_its_position_and_an_estimate(
    server: Server, client: FakeClient
) -> None:
    await completed(server, client)
    for _ in range(6):
        await server.submit(user=1)
    await server.until(6, "Submitted")
    position = (await get(server, "/jobs/7"))["queue"]
    assert position["ahead"] == 0
    assert position["estimated_wait_s"] >= 0
    waiting = (await get(server, "/jobs/7"))["waiting"]
    assert (waiting["reason"], waiting["ahead"]) == (position["reason"], 0)
    assert TIME.fullmatch(waiting["expected_start"]["p50"])
    assert waiting["expected_start"]["p50"] <= waiting["expected_start"]["p90"]


@pytest.mark.parametrize(
    ("settings", "slots", "reason"),
    [
        (
            {},
            10,
            "5 of this user's jobs are active, of at most 5",
        ),
        (
            {"SERVICE_EXAMPLE_RUNS_PER_USER": "10", "SERVICE_EXAMPLE_MAX_RUNS": "5"},
            10,
            "5 jobs of example are active, of at most 5",
        ),
        ({}, 4, "All 4 slots of this service's machines are busy"),
        (
            {"SERVICE_EXAMPLE_RUNS_PER_USER_BURST": "9", "BORROW_RESERVE": "5"},
            10,
            "The 5 free slots of this service's machines are kept for users with fewer active jobs",
        ),
        (
            {"MAX_RUNS_PER_USER": "4"},
            10,
            "4 of this user's jobs are active in all services, of at most 4",
        ),
        ({"TOTAL_MAX_RUNS": "3"}, 10, "3 jobs of all services are active, of at most 3"),
        (
            {"JOBS_PER_HOUR": "1", "JOBS_PER_HOUR_BURST": "5"},
            10,
            "5 of this user's jobs are active, of at most 5",
        ),
    ],
)
async def test_queued_job_says_which_limit_it_waits_for(
    start_server: StartServer,
    start_client: StartClient,
    client: FakeClient,
    settings: dict[str, str],
    slots: int,
    reason: str,
) -> None:
    client.slots = slots
    server = await start_server(await start_client(client), **settings)
    for _ in range(6):
        await server.submit(user=1)
    active = int(reason.split()[0]) if reason[0].isdigit() else min(slots, 5)
    for _ in range(active):
        await client.next_payload()
    await server.until(active, "Submitted")
    shown = await get(server, "/jobs/6")
    assert (shown["queue"]["reason"], shown["message"]) == (reason, reason)
    assert (await get(server, "/jobs"))["jobs"][0]["message"] == reason
    assert reason in (await server.state(6))[1]


async def test_queued_job_behind_long_jobs_is_not_promised_an_early_start(
    server: Server, client: FakeClient
) -> None:
    now = [time.time()]
    queries = server.app[keys.QUERIES]
    outlooks = replace(queries.outlooks, now=lambda: now[0])
    queries = replace(queries, outlooks=outlooks, now=lambda: now[0])
    queries.statistics.restore([Times("example", JobStatus.COMPLETED, 0.0, 0.0, 300.0)])
    for _ in range(6):
        await server.submit(user=1)
    for payload in range(1, 6):
        await server.until(payload, "Submitted")
        client.report(payload, PayloadStatus.RUNNING)
        await server.until(payload, "Running")
    now[0] += 240
    # The five that run end in 60 s.
    position = (await queries.job(6, details=True)).queue
    assert position is not None
    assert position.estimated_wait_s == pytest.approx(60, abs=20)
    now[0] += 200
    # They have run longer than any job before, and may run as long again.
    position = (await queries.job(6, details=True)).queue
    assert position is not None
    assert position.estimated_wait_s == pytest.approx(440, abs=40)


@tuned(client_backoff=Backoff((60.0,)))
async def test_trap_48_queued_job_without_a_usable_client_has_the_reason_and_no_estimate(
    idle_server: Server,
) -> None:
    times = Times("example", JobStatus.COMPLETED, 0.0, 0.0, 5.0)
    idle_server.app[keys.QUERIES].statistics.restore([times])
    job = await idle_server.submit()
    await idle_server.eventually(lambda: all(client.problem for client in idle_server.clients))

    shown = await get(idle_server, f"/jobs/{job}")

    problem = "http://127.0.0.1:9/submit can't be reached: Connection refused"
    reason = f"No machine of this service can be used at present ({problem})"
    assert shown["queue"] == {"ahead": 0, "estimated_wait_s": None, "reason": reason}
    assert shown["message"].startswith(reason)
    (listed,) = (await get(idle_server, "/jobs"))["jobs"]
    assert listed["message"] == shown["message"]
    async with idle_server.http.get(f"/jobs/{job}/events") as response:
        event = await anext(read_events(response.content.iter_any()))
    assert json.loads(event.data)["message"] == shown["message"]
    assert (await idle_server.state(job))[1].startswith(f"Next in line; {reason}")


async def test_stats_mean_wait_includes_the_jobs_that_still_wait(idle_server: Server) -> None:
    for _ in range(2):
        await idle_server.submit()
    later = time.time() + 160

    stats = await replace(idle_server.app[keys.QUERIES], now=lambda: later).stats()

    assert stats.waiting == 2
    assert stats.wait_s_mean == pytest.approx(160, abs=20)
    assert stats.wait_s_max == pytest.approx(160, abs=20)


def test_expected_run_time_is_the_median_of_recent_jobs_without_cancelled_ones() -> None:
    statistics = JobStatistics(lambda: 0.0)
    assert statistics.remaining_s("x") is None
    runs = [(JobStatus.KILLED, 1), (JobStatus.COMPLETED, 300), (JobStatus.FAILED, 280)]
    runs += [(JobStatus.COMPLETED, 310), (JobStatus.KILLED, 2)]
    statistics.restore([Times("x", status, 0.0, 0.0, float(run_s)) for status, run_s in runs])
    assert statistics.remaining_s("x") == 300
    assert statistics.remaining_s("x", 290.0) == 15
    assert statistics.remaining_s("x", 400.0) == 400
    assert statistics.remaining_s("other") is None


async def test_jobs_filtered_are_listed_in_pages(idle_server: Server) -> None:
    for user in (1, 2, 1, 1):
        await idle_server.submit(user=user)
    page = await get(idle_server, "/jobs?user_id=1&limit=2&service=EXAMPLE")
    assert [job["id"] for job in page["jobs"]] == [4, 3]
    rest = await get(idle_server, f"/jobs?user_id=1&limit=2&after={page['next']}")
    assert ([job["id"] for job in rest["jobs"]], rest["next"]) == ([1], None)
    assert (await get(idle_server, "/jobs?status=completed,Failed&tag=x"))["jobs"] == []


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("user_id=me", "Invalid user_id 'me', should be a number"),
        ("status=Queued,Lost", "Invalid status 'lost', should be among Queued, Processing"),
        ("limit=0", "Invalid limit '0', should be a number from 1 to 500"),
        ("limit=501", "Invalid limit '501'"),
        ("after=x", "Invalid after 'x', should be the next of an earlier page"),
        ("after=99999999999999999999", "Invalid after"),
    ],
)
async def test_jobs_invalid_query_is_a_400(idle_server: Server, query: str, message: str) -> None:
    assert (await get(idle_server, f"/jobs?{query}", 400))["message"].startswith(message)


async def test_services_have_limits_usage_and_state(server: Server, client: FakeClient) -> None:
    await server.submit()
    await client.next_payload()
    await server.until(1, "Submitted")
    (service,) = (await get(server, "/services"))["services"]
    (url,) = service.pop("clients")
    assert url.endswith("/submit")
    assert service == {
        "name": "example",
        "runs_per_user": 5,
        "max_runs": 10,
        "max_attempts": 3,
        "time_limit_s": None,
        "active": 1,
        "queued": 0,
        "state": "ok",
        "problem": "",
        "running": 0,
        "waiting": 1,
        "policy": "fair",
        "runs_per_user_burst": 5,
        "paused": False,
    }
    (shown,) = (await get(server, "/clients"))["clients"]
    assert (shown["url"], shown["services"], shown["state"]) == (url, ["example"], "connected")
    assert (shown["slots"], shown["jobs"], shown["cpu"]) == (10, 1, 1.0)


async def test_services_all_clients_down_is_down_with_the_reason(
    start_server: StartServer,
) -> None:
    server = await start_server("http://127.0.0.1:9")
    clients: list[Any] = []
    while not clients or clients[0]["state"] == "unknown":
        clients = (await get(server, "/clients"))["clients"]
    assert clients[0]["state"] == "unreachable"
    (service,) = (await get(server, "/services"))["services"]
    assert service["state"] == "down"
    assert "can't be reached" in service["problem"]


async def test_stats_count_jobs_of_the_last_hour(server: Server, client: FakeClient) -> None:
    await completed(server, client)
    minutes = (await get(server, "/stats"))["minutes"]
    assert len(minutes) == 60
    assert sum(minute["submitted"] for minute in minutes) == 1
    assert sum(minute["completed"] for minute in minutes) == 1
    assert next(m["wait_s_max"] for m in minutes if m["wait_s_max"] is not None) >= 0


def test_statistics_restored_at_a_start_forget_older_jobs() -> None:
    clock = [60.0 * 1000]
    statistics = JobStatistics(lambda: clock[0])
    done, failed = JobStatus.COMPLETED, JobStatus.FAILED
    statistics.restore(
        [
            Times("x", done, 60.0 * 900, 60.0 * 999, 60.0 * 999 + 10),
            Times("x", failed, 60.0 * 998, 60.0 * 998 + 4, 60.0 * 999 + 10),
        ]
    )
    minutes = {minute.number: minute for minute in statistics.minutes()}
    assert list(minutes) == list(range(941, 1001))
    assert (minutes[999].completed, minutes[999].failed) == (1, 1)
    assert minutes[998].mean_wait_s == 4
    clock[0] += 3600
    assert not any(m.submitted or m.completed or m.waits for m in statistics.minutes())


async def test_request_id_is_echoed_and_sent_to_the_client(
    server: Server, client: FakeClient
) -> None:
    seen: set[tuple[str, str]] = set()

    def spy(name: str, original: Any) -> Any:
        async def answer(request: web.Request) -> web.StreamResponse:
            seen.add((name, request.headers["X-Request-Id"]))
            response: web.StreamResponse = await original(request)
            return response

        return answer

    client.instead = {"submit": spy("submit", client.submit), "kill": spy("kill", client.kill)}
    job = await server.submit()
    await client.next_payload()
    await server.until(job, "Submitted")
    headers = {"X-Request-Id": "portal-42"}
    async with server.http.post(f"/terminate/{job}", headers=headers) as response:
        assert response.headers["X-Request-Id"] == "portal-42"
    assert {("submit", "job-1.1"), ("kill", "portal-42")} <= seen


@pytest.mark.parametrize(
    "given", ["", "x" * 129, "ä", "a user=7", "a=b", "a]", 'a"', "a/b", "a\tb"]
)
async def test_request_id_invalid_is_replaced(idle_server: Server, given: str) -> None:
    async with idle_server.http.get("/nothing", headers={"X-Request-Id": given}) as response:
        assert response.status == 404
        assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-Id"])


def test_log_line_field_cannot_forge_another_field() -> None:
    record = logging.LogRecord("jo", logging.INFO, "", 0, "Here", (), None)
    record.about = {"payload": 3, "key": 'k user=7] [job="1', "service": "ä-b"}
    line = TextFormatter("%(message)s").format(record)
    assert line == r'Here [payload=3 key="k user=7] [job=\"1" service=ä-b]'


async def test_log_lines_have_the_fields_of_job_and_request(
    server: Server, client: FakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    caplog.handler.addFilter(AddFields())
    form = aiohttp.FormData({"user_id": "7", "service": "example"})
    form.add_field("file", b"exit 0", filename="run.sh")
    await server.post(form, **{"X-Request-Id": "portal-1"})
    client.complete(await client.next_payload())
    await server.ended(1)
    about = {record.getMessage(): record.about for record in caplog.records}  # type: ignore[attr-defined]
    assert about["Job 1 is Queued"] == {
        "request_id": "portal-1",
        "job": 1,
        "user": 7,
        "service": "example",
    }
    ended = about["Job 1 is Completed"]
    assert (ended["job"], ended["user"], ended["request_id"]) == (1, 7, "job-1.1")
    assert ended["client"].endswith("/submit")
    record = next(r for r in caplog.records if r.getMessage() == "Job 1 is Queued")
    assert (
        TextFormatter("%(message)s")
        .format(record)
        .endswith("Job 1 is Queued [request_id=portal-1 job=1 user=7 service=example]")
    )
    line = json.loads(JsonFormatter().format(record))
    assert (line["message"], line["job"], line["request_id"]) == ("Job 1 is Queued", 1, "portal-1")
    assert "about" not in line


async def test_stats_terminated_jobs_are_counted_once(server: Server, client: FakeClient) -> None:
    for _ in range(6):
        await server.submit()
    for _ in range(5):
        await client.next_payload()
    await server.until(5, "Submitted")
    for job in (6, 1):  # one that is queued, and one whose output is fetched after its end
        await server.http.post(f"/terminate/{job}")
    await server.eventually(lambda: server.rows("SELECT has_output FROM jobs")[0] == (1,))
    minutes = (await get(server, "/stats"))["minutes"]
    assert sum(minute["submitted"] for minute in minutes) == 6
    assert sum(minute["cancelled"] for minute in minutes) == 2
    assert sum(minute["failed"] for minute in minutes) == 0
    async with server.http.get("/metrics") as response:
        text = await response.text()
    assert 'jo_server_jobs_submitted_total{service="example"} 6.0' in text
    assert 'jo_server_jobs_ended_total{service="example",status="Killed"} 2.0' in text
