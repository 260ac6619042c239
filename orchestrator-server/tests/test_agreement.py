"""Settings of clients that contradict those of the server."""

import pytest

from fake_client import FakeClient, StartClient
from job_orchestrator.common.messages.payloads import ClientLimits
from job_orchestrator.server.clients.agreement import ServerLimits, contradictions
from running_server import Server, StartServer

SERVER = ServerLimits(max_upload_bytes=1000, max_result_bytes=500, lost_after_s=300)


@pytest.mark.parametrize(
    ("client", "messages"),
    [
        (ClientLimits(1000, 500, 300), []),
        (ClientLimits(2000, 400, 1e6), []),
        (ClientLimits(999, 500, 300), ["its MAX_UPLOAD_SIZE is 999 B, that of jo-server is 1 kB"]),
        (
            ClientLimits(1000, 0, 300),
            ["its MAX_RESULT_SIZE is not set, that of jo-server is 500 B"],
        ),
        (ClientLimits(1000, 501, 300), ["its MAX_RESULT_SIZE is 501 B"]),
        (ClientLimits(1000, 500, 60), ["its MAX_AGE is 60 s, LOST_AFTER of jo-server is 300 s"]),
    ],
)
def test_contradictions_name_both_settings(client: ClientLimits, messages: list[str]) -> None:
    found = list(contradictions(client, SERVER))
    assert len(found) == len(messages)
    assert all(text.startswith(start) for text, start in zip(found, messages, strict=True))


def test_server_without_a_limit_for_results_agrees_with_every_client() -> None:
    assert list(contradictions(ClientLimits(5, 0, 1), ServerLimits(5))) == []


async def test_job_that_a_client_would_refuse_is_refused_at_upload_with_the_limit(
    start_server: StartServer, start_client: StartClient, client: FakeClient
) -> None:
    client.limits = ClientLimits(1000, 0, 1e6)
    server = await start_server(await start_client(client), MAX_UPLOAD_SIZE="1MB")
    await server.hears_clients()
    _, answer = await server.upload(big=bytes(1001 - len(b"exit 0\n")))
    assert answer["message"] == (
        "Files too large: at most 1000 bytes in all for the service example (MAX_UPLOAD_SIZE of its"
        " machines)"
    )
    assert server.folders() == []
    await server.submit(big=bytes(1000 - len(b"exit 0\n")))


async def test_upload_that_no_client_takes_is_refused_before_it_is_received(
    start_server: StartServer, start_client: StartClient, client: FakeClient
) -> None:
    client.limits = ClientLimits(1000, 0, 1e6)
    server = await start_server(await start_client(client), MAX_UPLOAD_SIZE="1GB")
    await server.hears_clients()
    async with server.http.post(
        "/upload", data=b"", headers={"Content-Length": "900000000", "Content-Type": "text/x"}
    ) as response:
        assert "at most 1000 bytes in all" in (await response.json())["message"]


async def test_job_is_accepted_while_the_limits_of_its_clients_are_not_known(
    idle_server: Server,
) -> None:
    await idle_server.submit(big=bytes(100_000))


async def test_contradiction_is_listed_with_its_client_and_logged_once(
    start_server: StartServer,
    start_client: StartClient,
    client: FakeClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client.limits = ClientLimits(1000, 0, 1e6)
    server = await start_server(await start_client(client), MAX_UPLOAD_SIZE="1MB")
    await server.hears_clients()
    client.slots = 9
    client.push(client.load_event())
    (known,) = server.clients
    await server.eventually(lambda: known.slots == 9)
    async with server.http.get("/clients") as response:
        (shown,) = (await response.json())["clients"]
    (warning,) = shown["warnings"]
    assert warning.startswith("its MAX_UPLOAD_SIZE is 1 kB")
    assert sum(warning in record.message for record in caplog.records) == 1
    client.limits = ClientLimits(10**6, 0, 1e6)
    client.slots = 10
    client.push(client.load_event())
    await server.eventually(lambda: known.slots == 10)
    async with server.http.get("/clients") as response:
        assert (await response.json())["clients"][0]["warnings"] == []
