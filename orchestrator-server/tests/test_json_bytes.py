"""The JSON of answers and events, to the byte: order of the fields, format of the times."""

import re

import aiohttp

from fake_client import FakeClient
from job_orchestrator.common import __version__
from job_orchestrator.common.status import PayloadStatus
from running_server import Server

_VARYING = (
    (re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"), b"<time>"),
    (re.compile(rb"http://127\.0\.0\.1:\d+"), b"http://compute"),
    (re.compile(rb'"(seconds|ran_s)":\d+\.\d+'), rb'"\1":<s>'),
    (re.compile(rb'"(wait_s_\w+|estimated_wait_s)":\d+\.\d+'), rb'"\1":<s>'),
    (re.compile(rb'"why":"[^"]*"'), b'"why":"<why>"'),
    (re.compile(rb'"output_bytes":\d+'), b'"output_bytes":<n>'),
)

FIELDS = {
    "user_id": "7",
    "service": "example",
    "name": "a name",
    "priority": "3",
    "time_limit": "300.5",
}

JOB = (
    b'"id":1,"user_id":7,"service":"example","status":"Completed","message":"","name":"a name",'
    b'"tag":"","priority":3,"attempt":1,"exit_code":0,"client":"http://compute/submit",'
    b'"time_limit_s":300.5,"created_at":"<time>","started_at":"<time>","ended_at":"<time>",'
    b'"has_output":true,"output_bytes":<n>,"failures":0,"held":false,'
    b'"cpus":0.0,"memory_bytes":0,"gpus":0,"ran_s":<s>'
)


async def body(server: Server, path: str) -> bytes:
    """Return the body of ``GET path`` with placeholders for times, ports and durations."""
    async with server.http.get(path) as response:
        assert response.status == 200
        found = await response.read()
    if response.content_type == "application/json":
        assert found.endswith(b"\n")
        found = found[:-1]
    for pattern, placeholder in _VARYING:
        found = pattern.sub(placeholder, found)
    return found


async def complete_one(server: Server, client: FakeClient) -> None:
    """Run a job with options to its end."""
    form = aiohttp.FormData(FIELDS, quote_fields=False)
    form.add_field("file", b"exit 0\n", filename="run.sh")
    status, answer = await server.post(form)
    assert status == 201, answer
    job = answer["id"]
    payload = await client.next_payload()
    await server.until(job, "Submitted")
    client.report(payload, PayloadStatus.RUNNING)
    await server.until(job, "Running")
    client.run_s = 0.0625
    client.complete(payload, **{"out.txt": "x"})
    await server.ended(job)


async def test_job_and_list_have_these_bytes(server: Server, client: FakeClient) -> None:
    await complete_one(server, client)

    assert await body(server, "/jobs/1") == (
        b"{" + JOB + b',"history":['
        b'{"at":"<time>","from":null,"to":"Queued","why":"<why>","seconds":<s>},'
        b'{"at":"<time>","from":"Queued","to":"Processing","why":"<why>","seconds":<s>},'
        b'{"at":"<time>","from":"Processing","to":"Submitted","why":"<why>","seconds":<s>},'
        b'{"at":"<time>","from":"Submitted","to":"Running","why":"<why>","seconds":<s>},'
        b'{"at":"<time>","from":"Running","to":"Completed","why":"<why>","seconds":<s>}'
        b'],"queue":null,"max_attempts":3,"outputs":[],"results":"all","waiting":null,'
        b'"after":[],"afterany":[]}'
    )
    assert await body(server, "/jobs?limit=1") == b'{"jobs":[{' + JOB + b'}],"next":null}'
    assert await body(server, "/jobs/1/files") == (
        b'{"files":[{"path":"out.txt","size":1}],"truncated":false}'
    )


async def test_queued_job_ends_with_these_bytes(idle_server: Server) -> None:
    await idle_server.submit()
    await idle_server.eventually(lambda: all(client.problem for client in idle_server.clients))

    shown = await body(idle_server, "/jobs/1")

    assert b'"exit_code":null,"client":null,"time_limit_s":null,"created_at":"<time>",' in shown
    assert b'"started_at":null,"ended_at":null,"has_output":false,"output_bytes":null,' in shown
    assert b'"queue":{"ahead":0,"estimated_wait_s":null,"reason":"' in shown
    assert b'"},"max_attempts":100,"outputs":[],"results":"all","waiting":{"reason":"' in shown
    assert shown.endswith(b'","ahead":0,"expected_start":null},"after":[],"afterany":[]}')


async def test_services_clients_and_statistics_have_these_bytes(
    server: Server, client: FakeClient
) -> None:
    await complete_one(server, client)

    assert await body(server, "/services") == (
        b'{"services":[{"name":"example","runs_per_user":5,"max_runs":10,"max_attempts":3,'
        b'"time_limit_s":null,"active":0,"queued":0,"state":"ok","problem":"",'
        b'"clients":["http://compute/submit"],"running":0,"waiting":0,'
        b'"policy":"fair","runs_per_user_burst":5,"paused":false}],"use":[]}'
    )
    assert await body(server, "/clients") == (
        b'{"clients":[{"url":"http://compute/submit","services":["example"],'
        b'"state":"connected","problem":"","slots":10,"running":0,"waiting":0,"cpu":1.0,'
        b'"memory":1.0,"jobs":0,"version":null,"draining":false,"warnings":[],'
        b'"resources":null,"resources_used":null}]}'
    )
    minutes = await body(server, "/stats")
    quiet = (
        b'{"at":"<time>","submitted":0,"completed":0,"failed":0,"cancelled":0,'
        b'"wait_s_mean":null,"wait_s_max":null}'
    )
    assert minutes.startswith(b'{"minutes":[' + quiet + b"," + quiet)
    assert minutes.endswith(b'}],"waiting":0,"wait_s_mean":<s>,"wait_s_max":<s>}')
    assert b'"wait_s_mean":<s>,"wait_s_max":<s>' in minutes


async def test_event_of_an_ended_job_has_these_bytes(server: Server, client: FakeClient) -> None:
    await complete_one(server, client)

    shown = await body(server, "/jobs/1/events")

    assert shown == b"id: 1000005\nevent: job\ndata: {" + JOB + b"}\n\n"


async def test_answers_about_the_service_have_these_bytes(server: Server) -> None:
    assert await body(server, "/") == (
        b'{"message":"pong","dashboard":"/dashboard/","api":"/swagger-ui/"}'
    )
    assert await body(server, "/health") == (
        b'{"version":"' + __version__.encode() + b'","status":"healthy","database":"ok"}'
    )
    assert await body(server, "/whoami") == (
        b'{"user_id":null,"admin":true,"auth":false,"limits":null}'
    )
