"""CLIENT_TOKEN on the server: it goes with every request, and its refusal only delays jobs."""

import pytest

from fake_client import FakeClient, StartClient
from job_orchestrator.common.runtime.backoff import Backoff
from running_server import StartServer, tuned

TOKEN = "a-token-of-32-characters-or-more"


@tuned(client_backoff=Backoff((0.0,)))
@pytest.mark.parametrize(
    ("settings", "why"),
    [({}, "CLIENT_TOKEN is not set here"), ({"CLIENT_TOKEN": TOKEN}, "CLIENT_TOKEN differs")],
)
async def test_client_that_refuses_the_token_delays_jobs_and_costs_no_attempt(
    client: FakeClient,
    start_client: StartClient,
    start_server: StartServer,
    caplog: pytest.LogCaptureFixture,
    settings: dict[str, str],
    why: str,
) -> None:
    client.token = "another-token-of-32-characters-x"
    url = await start_client(client)
    server = await start_server(url, **settings)
    job = await server.submit()
    refusal = f"{url}/submit refused the token: {why}"
    await server.eventually(lambda: client.requests["link"] >= 2)
    state = await server.state(job)
    assert state[0] == "Queued"
    assert refusal in state[1]
    assert refusal in caplog.text
    assert TOKEN not in caplog.text
    assert server.rows("SELECT attempt, failures FROM jobs") == [(0, 0)]
    client.token = settings.get("CLIENT_TOKEN", "")
    client.complete(await client.next_payload())
    assert await server.ended(job) == ("Completed", "")


async def test_token_is_sent_with_every_request(
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
    await server.eventually(
        lambda: client.requests["acknowledge"] > 0 and client.requests["kill"] > 0
    )
    assert client.acknowledged
