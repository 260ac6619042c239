"""CLIENT_TOKEN on the server: it is shown to clients, and a client that refuses it costs a wait."""

from collections.abc import Awaitable, Callable

import pytest

from fake_client import FakeClient
from job_orchestrator.server import keys
from job_orchestrator.server.clients import registry as client_pool
from running_server import StartServer

TOKEN = "a-token-of-32-characters-or-more"
StartClient = Callable[[FakeClient], Awaitable[str]]


@pytest.mark.parametrize(
    ("settings", "why"),
    [({}, "CLIENT_TOKEN is not set here"), ({"CLIENT_TOKEN": TOKEN}, "CLIENT_TOKEN differs")],
)
async def test_client_that_refuses_the_token_costs_jobs_a_wait_and_no_attempt(
    client: FakeClient,
    start_client: StartClient,
    start_server: StartServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    settings: dict[str, str],
    why: str,
) -> None:
    monkeypatch.setattr(client_pool, "BACK_OFF_S", (0.0,))
    client.token = "another-token-of-32-characters-x"
    url = await start_client(client)
    server = await start_server(url, **settings)
    job = await server.submit()
    refusal = f"{url}/submit refused the token: {why}"
    await server.eventually(lambda: client.requests["submit"] >= 4)
    with server.app[keys.FEED].following(job) as changes:
        while (state := await server.state(job))[0] != "Queued":
            await changes.wait(20)
    assert refusal in state[1]
    assert refusal in caplog.text
    assert TOKEN not in caplog.text
    assert server.rows("SELECT failures FROM jobs") == [(0,)]
    client.token = settings.get("CLIENT_TOKEN", "")
    client.complete(await client.next_payload())
    assert await server.ended(job) == ("Completed", "")


async def test_token_is_shown_with_every_request(
    client: FakeClient, start_client: StartClient, start_server: StartServer
) -> None:
    client.token = TOKEN
    server = await start_server(await start_client(client), CLIENT_TOKEN=TOKEN)
    await client.connected.wait()
    done, ended = await server.submit(), await server.submit()
    client.complete(await client.next_payload())
    await client.next_payload()
    assert await server.ended(done) == ("Completed", "")
    async with server.http.post(f"/terminate/{ended}") as response:
        assert response.status == 200
    await server.eventually(lambda: client.requests["discard"] > 0 and client.requests["kill"] > 0)
    assert client.discarded
