"""Dispatch of jobs over the link of a client."""

import asyncio
import hashlib

import pytest
from aiohttp import web

from fake_client import FakeClient, StartClient, zip_of
from job_orchestrator.common.protocol import link
from job_orchestrator.common.runtime.clock import steady_time
from job_orchestrator.common.status import PayloadStatus
from running_server import StartServer, tuned


async def test_job_over_the_link_costs_one_assignment_and_no_request(
    client: FakeClient, start_client: StartClient, start_server: StartServer
) -> None:
    client.offers_link = True
    server = await start_server(await start_client(client))
    await client.connected.wait()
    job = await server.submit(**{"in/a.txt": b"1"})
    payload = await client.next_payload()
    assert client.names[payload] == {"run.sh", "in/a.txt"}
    (opened,) = client.links
    client.report(payload, PayloadStatus.RUNNING)
    client.complete(payload, out="42")
    assert await server.ended(job) == ("Completed", "")
    assert (await server.results(job)).read("out") == b"42"
    assert client.requests["retrieve"] == client.requests["events"] == 0
    assert [type(item).__name__ for item in opened.received[:2]] == ["ListPayloads", "Assign"]
    await server.eventually(lambda: client.acknowledged == {payload})
    statuses = server.rows("SELECT to_status FROM job_events ORDER BY id")
    assert [row[0] for row in statuses][-2:] == ["Running", "Completed"]


async def test_end_of_a_job_that_is_not_recorded_yet_is_written_with_that_record(
    client: FakeClient, start_client: StartClient, start_server: StartServer
) -> None:
    client.offers_link = True
    server = await start_server(await start_client(client))
    await client.connected.wait()

    async def ended_immediately(request: web.Request) -> web.StreamResponse:
        response = await client.submit(request)
        client.complete(await client.next_payload(), out="42")
        return response

    client.instead["submit"] = ended_immediately
    jobs = [await server.submit() for _ in range(5)]
    for job in jobs:
        assert await server.ended(job) == ("Completed", "")
        assert (await server.results(job)).read("out") == b"42"
    assert client.requests["retrieve"] == 0


@tuned(fetch_retry_s=0.0)
async def test_trap_47_results_that_differ_from_their_digest_are_fetched_again(
    client: FakeClient, start_client: StartClient, start_server: StartServer
) -> None:
    client.offers_link = True
    server = await start_server(await start_client(client))
    await client.connected.wait()
    job = await server.submit()
    payload = await client.next_payload()
    await server.until(job, "Submitted")
    garbled = link.Ended(
        payload, client.keys[payload], PayloadStatus.COMPLETED, 0, "", zip_of(out="13"), bytes(32)
    )
    client.results[payload] = zip_of(out="42")
    client.report(payload, PayloadStatus.COMPLETED, push=False)
    await client.links[0].send(garbled)
    await server.eventually(lambda: client.requests["retrieve"] == 1)
    assert await server.ended(job) == ("Completed", "")
    assert (await server.results(job)).read("out") == b"42"


@pytest.mark.parametrize("behind_s", [3600.0, -3600.0])
async def test_times_of_the_client_are_recorded_by_the_clock_of_the_server(
    client: FakeClient, start_client: StartClient, start_server: StartServer, behind_s: float
) -> None:
    client.offers_link = True
    client.clock = lambda: steady_time() - behind_s
    server = await start_server(await start_client(client))
    await client.connected.wait()
    job = await server.submit()
    payload = await client.next_payload()
    await server.until(job, "Submitted")
    (opened,) = client.links
    key, zipped, started = client.keys[payload], zip_of(out="42"), client.clock()
    await asyncio.sleep(0.2)
    digest = hashlib.sha256(zipped).digest()
    # Both reports arrive later than the start that the first one is about.
    await opened.send(
        link.Started(payload, key, started),
        link.Ended(
            payload, key, PayloadStatus.COMPLETED, 0, "", zipped, digest, client.clock() - 0.1
        ),
    )
    assert await server.ended(job) == ("Completed", "")
    ((began, ended),) = server.rows("SELECT started_at, ended_at FROM jobs")
    assert began < ended - 0.05
    # The offset of the clocks is known to within the time that the hello travelled.
    assert abs(began - (started + behind_s)) < 60
    times = [at for (at,) in server.rows("SELECT at FROM job_events ORDER BY id")]
    assert times == sorted(times)
