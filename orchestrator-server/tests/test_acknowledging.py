"""Acknowledgement of stored results, until the client has confirmed it."""

import pytest

from fake_client import FakeClient, StartClient, answering, hang_up
from job_orchestrator.common.runtime.backoff import Backoff
from running_server import Server, StartServer, tuned


async def stop(server: Server) -> None:
    """Stop a server, as SIGTERM does."""
    await server.app.shutdown()
    await server.app.cleanup()


def recorded(server: Server) -> list[tuple[int, ...]]:
    return server.rows("SELECT payload_id FROM acknowledgements")


async def completed(server: Server, client: FakeClient) -> int:
    """Run a job; return the id of its payload."""
    job = await server.submit()
    payload = await client.next_payload()
    client.complete(payload)
    assert await server.ended(job) == ("Completed", "")
    return payload


async def test_acknowledgement_is_removed_when_the_client_has_confirmed_it(
    server: Server, client: FakeClient
) -> None:
    payload = await completed(server, client)
    await server.eventually(lambda: client.acknowledged == {payload})
    await server.eventually(lambda: recorded(server) == [])


async def test_acknowledgement_that_was_not_sent_is_sent_after_a_restart(
    server: Server, client: FakeClient, start_server: StartServer
) -> None:
    client.instead |= {"inventory": answering(404), "acknowledge": hang_up}
    payload = await completed(server, client)
    assert recorded(server) == [(payload,)]
    urls = [each.name.removesuffix("/submit") for each in server.clients]
    await stop(server)
    del client.instead["acknowledge"]
    second = await start_server(*urls)
    await second.eventually(lambda: client.acknowledged == {payload})


@tuned(acknowledge_interval_s=0.01, acknowledge_backoff=Backoff((0.01,)))
@pytest.mark.parametrize("answer", [hang_up, answering(500), answering(503)])
async def test_acknowledgement_that_fails_is_repeated(
    server: Server, client: FakeClient, answer: object
) -> None:
    client.instead["acknowledge"] = answer  # type: ignore[assignment]
    payload = await completed(server, client)
    await server.eventually(lambda: client.requests["acknowledge"] > 2)
    assert recorded(server) == [(payload,)]
    del client.instead["acknowledge"]
    await server.eventually(lambda: client.acknowledged == {payload})
    await server.eventually(lambda: recorded(server) == [])


@tuned(acknowledge_interval_s=0.01, reconnect_backoff=Backoff((0.01,)))
async def test_acknowledgement_waits_for_a_client_that_is_away(
    server: Server, client: FakeClient
) -> None:
    client.instead["acknowledge"] = hang_up
    payload = await completed(server, client)
    client.go_away()
    (known,) = server.clients
    await server.eventually(lambda: bool(known.problem))
    del client.instead["acknowledge"]
    assert recorded(server) == [(payload,)]
    client.come_back()
    await server.eventually(lambda: client.acknowledged == {payload})


@tuned(acknowledge_interval_s=0.01)
async def test_refused_acknowledgement_is_not_repeated(server: Server, client: FakeClient) -> None:
    client.instead["acknowledge"] = answering(400)
    await completed(server, client)
    await server.eventually(lambda: recorded(server) == [])
    assert client.requests["acknowledge"] == 1


@tuned(acknowledge_interval_s=0.01)
async def test_older_client_gets_no_acknowledgement(
    client: FakeClient, start_client: StartClient, start_server: StartServer
) -> None:
    client.instead["events"] = answering(404)
    server = await start_server(await start_client(client))
    await completed(server, client)
    await server.eventually(lambda: recorded(server) == [])
    assert client.requests["acknowledge"] == 0
