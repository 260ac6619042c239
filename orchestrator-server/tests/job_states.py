"""Ways to bring a job into each state, with a fake client."""

from collections.abc import Awaitable, Callable, Mapping

from fake_client import FakeClient, hang_up
from job_orchestrator.common.status import JobStatus, PayloadStatus
from job_orchestrator.server import keys
from running_server import Server

OUTPUT = {"out": "x", ".orchestrator/stdout.txt": "one\n"}

Reach = Callable[[Server, FakeClient], Awaitable[int]]
"""Brings a job into a state, and returns its id."""


async def queued(server: Server, client: FakeClient) -> int:
    await submitted(server, client)
    return await server.submit()


async def processing(server: Server, client: FakeClient) -> int:
    client.hold_submits()
    job = await server.submit()
    await server.until(job, "Processing")
    return job


async def submitted(server: Server, client: FakeClient) -> int:
    job = await server.submit()
    await client.next_payload()
    await server.until(job, "Submitted")
    return job


async def running(server: Server, client: FakeClient) -> int:
    job = await submitted(server, client)
    client.report(1, PayloadStatus.RUNNING)
    await server.until(job, "Running")
    return job


async def unknown(server: Server, client: FakeClient) -> int:
    job = await running(server, client)
    for call in ("kill", "kill_key", "partial", "logs", "retrieve", "load"):
        client.instead[call] = hang_up
    client.go_away()
    await server.until(job, "Unknown")
    return job


async def completed(server: Server, client: FakeClient) -> int:
    job = await running(server, client)
    client.complete(1, **OUTPUT)
    await server.until(job, "Completed")
    return job


async def failed(server: Server, client: FakeClient) -> int:
    job = await running(server, client)
    client.report(1, PayloadStatus.FAILED)
    await server.until(job, "Failed")
    return job


async def invalid(server: Server, client: FakeClient) -> int:
    job = await submitted(server, client)
    client.report(1, PayloadStatus.INVALID)
    await server.until(job, "Invalid")
    return job


async def killed(server: Server, client: FakeClient) -> int:
    job = await running(server, client)
    async with server.http.post(f"/terminate/{job}") as response:
        assert response.status == 200
    await server.eventually(lambda: server.rows("SELECT has_output FROM jobs") == [(1,)])
    return job


async def killed_in_the_queue(server: Server, client: FakeClient) -> int:
    job = await queued(server, client)
    async with server.http.post(f"/terminate/{job}") as response:
        assert response.status == 200
    return job


async def cleaned(server: Server, client: FakeClient) -> int:
    job = await completed(server, client)
    store = server.app[keys.JOB_LOGS].store
    await store.transition(await store.get(job), JobStatus.CLEANED, "Removed")
    return job


STATES: Mapping[str, Reach] = {
    "`Queued`, also for a quota or without a machine": queued,
    "`Processing`": processing,
    "`Submitted`": submitted,
    "`Running`": running,
    "`Unknown`: its machine can't be reached": unknown,
    "`Completed`": completed,
    "`Failed`, `Killed` with output": failed,
    "`Killed` while it ran": killed,
    "`Killed` in the queue": killed_in_the_queue,
    "`Invalid`": invalid,
    "`Cleaned`": cleaned,
}
