"""Comparison of a client's payloads with the jobs of the server, after each connection."""

import asyncio
import contextlib
import shutil
import sqlite3

import pytest

from fake_client import FakeClient, StartClient, answering
from job_orchestrator.common.messages.payloads import Payload
from job_orchestrator.common.runtime.backoff import Backoff
from job_orchestrator.common.status import PayloadStatus
from running_server import Server, StartServer, tuned

OTHER = "0b9d4b0e-6b5c-4c0e-8a55-1d2c3b4a5f60.1.0123456789abcdef-0123456789abcdef"
"""Key of another server that uses the same client."""


async def stop(server: Server) -> None:
    """Stop a server, as SIGTERM does."""
    await server.app.shutdown()
    await server.app.cleanup()


def execute(server: Server, statement: str) -> None:
    """Change the database of a server that is stopped."""
    with contextlib.closing(sqlite3.connect(server.root / "db.sqlite")) as database, database:
        database.execute(statement)


async def test_trap_46_run_that_a_restored_backup_does_not_contain_is_ended(
    client: FakeClient, start_client: StartClient, start_server: StartServer
) -> None:
    url = await start_client(client)
    first = await start_server(url)
    await stop(first)
    database = first.root / "db.sqlite"
    await asyncio.to_thread(shutil.copy, database, first.root / "backup.sqlite")
    second = await start_server(url)
    job = await second.submit()
    lost = await client.next_payload()
    client.report(lost, PayloadStatus.RUNNING)
    await second.until(job, "Running")
    await stop(second)
    await asyncio.to_thread(shutil.copy, first.root / "backup.sqlite", database)

    restored = await start_server(url)
    await restored.eventually(lambda: client.acknowledged == {lost})
    assert client.payloads[lost].status is PayloadStatus.KILLED
    assert client.killed_keys == [client.keys[lost]]
    job = await restored.submit()
    client.complete(await client.next_payload())
    assert await restored.ended(job) == ("Completed", "")


async def test_trap_46_earlier_attempt_that_is_not_recorded_is_ended_and_the_present_one_goes_on(
    server: Server, client: FakeClient, start_server: StartServer
) -> None:
    job = await server.submit()
    present = await client.next_payload()
    await server.until(job, "Submitted")
    urls = [each.name.removesuffix("/submit") for each in server.clients]
    await stop(server)
    uuid, _, nonce = client.keys[present].split(".")
    client.payloads[99] = Payload(99, PayloadStatus.RUNNING)
    client.keys[99] = f"{uuid}.1.{nonce[:-1]}"
    second = await start_server(*urls)
    await second.eventually(lambda: client.acknowledged == {99})
    assert client.payloads[99].status is PayloadStatus.KILLED
    client.complete(present)
    assert await second.ended(job) == ("Completed", "")
    assert client.killed_keys == [client.keys[99]]


async def test_payloads_of_other_servers_are_left_alone(
    client: FakeClient, start_client: StartClient, start_server: StartServer
) -> None:
    states = (PayloadStatus.RUNNING, PayloadStatus.COMPLETED)
    for payload, status in enumerate(states, start=90):
        client.payloads[payload] = Payload(payload, status)
    client.keys |= {90: OTHER, 91: OTHER.replace("-", "_").replace(".1.", ".2.")}
    server = await start_server(await start_client(client))
    job = await server.submit()
    payload = await client.next_payload()
    client.complete(payload)
    assert await server.ended(job) == ("Completed", "")
    await server.eventually(lambda: bool(client.acknowledged))
    assert client.acknowledged == {payload}
    assert client.payloads[90].status is PayloadStatus.RUNNING
    assert client.killed_keys == []


async def test_attempt_from_before_there_were_nonces_goes_on(
    server: Server, client: FakeClient, start_server: StartServer
) -> None:
    job = await server.submit()
    payload = await client.next_payload()
    await server.until(job, "Submitted")
    urls = [each.name.removesuffix("/submit") for each in server.clients]
    await stop(server)
    execute(server, "UPDATE jobs SET nonce = ''")
    client.keys[payload] = client.keys[payload].rpartition(".")[0]
    second = await start_server(*urls)
    await second.eventually(lambda: client.requests["inventory"] == 2)
    client.complete(payload)
    assert await second.ended(job) == ("Completed", "")
    assert second.rows("SELECT attempt FROM jobs") == [(1,)]


async def test_results_that_are_stored_are_acknowledged_at_the_next_connection(
    server: Server, client: FakeClient, start_server: StartServer
) -> None:
    job = await server.submit()
    payload = await client.next_payload()
    client.complete(payload)
    await server.ended(job)
    await server.eventually(lambda: client.acknowledged == {payload})
    urls = [each.name.removesuffix("/submit") for each in server.clients]
    await stop(server)
    client.acknowledged.clear()
    second = await start_server(*urls)
    await second.eventually(lambda: client.acknowledged == {payload})


@pytest.mark.parametrize("status", [404, 405, 500])
async def test_client_that_can_not_list_its_payloads_is_used(
    client: FakeClient, start_client: StartClient, start_server: StartServer, status: int
) -> None:
    client.instead["inventory"] = answering(status)
    server = await start_server(await start_client(client))
    job = await server.submit()
    client.complete(await client.next_payload())
    assert await server.ended(job) == ("Completed", "")
    assert client.requests["inventory"] == 1
    assert client.requests["events"] == 1


@pytest.mark.parametrize(
    "body", ["{}", "[1]", '[{"id": 1, "key": "a\\nb", "status": "Running"}]', "[", '[{"id": 1}]']
)
async def test_trap_25_inventory_of_a_hostile_client_harms_nobody(
    client: FakeClient, start_client: StartClient, start_server: StartServer, body: str
) -> None:
    client.instead["inventory"] = answering(200, body)
    server = await start_server(await start_client(client))
    job = await server.submit()
    client.complete(await client.next_payload())
    assert await server.ended(job) == ("Completed", "")


@tuned(reconnect_backoff=Backoff((0.01, 0.02, 3600.0)))
async def test_client_is_dialed_again_quickly_and_then_less_often(
    client: FakeClient, start_client: StartClient, start_server: StartServer
) -> None:
    client.instead["events"] = answering(500)
    server = await start_server(await start_client(client))
    await server.eventually(lambda: client.requests["events"] == 3)
    await asyncio.sleep(0.2)  # a fourth time would come sooner than the third delay
    assert client.requests["events"] == 3
