"""Jobs that ask for CPUs, memory or GPUs, from their submission to their client."""

import asyncio
import itertools
from typing import Any

import aiohttp
import pytest

from fake_client import FakeClient, StartClient
from job_orchestrator.common.messages.resources import NOTHING, Resources
from job_orchestrator.common.status import PayloadStatus
from job_orchestrator.server.dispatch.dispatcher import SizedQueues
from job_orchestrator.server.settings.server import read_settings
from running_server import Server, StartServer

GB = 10**9


def form(user: int = 1, **fields: str) -> aiohttp.FormData:
    form = aiohttp.FormData({"user_id": str(user), "service": "example", **fields})
    form.add_field("file", b"exit 0\n", filename="run.sh")
    return form


async def submit(server: Server, user: int = 1, **fields: str) -> int:
    status, answer = await server.post(form(user, **fields))
    assert status == 201, answer
    return int(answer["id"])


async def connected(
    start_client: StartClient,
    start_server: StartServer,
    *offers: Resources | None,
    link: bool = True,
    **settings: str,
) -> tuple[Server, list[FakeClient]]:
    """Start a server with one client for each offer, and wait until it knows them."""
    clients = []
    for offer in offers:
        client = FakeClient()
        client.resources, client.offers_link = offer, link
        clients.append(client)
    urls = [await start_client(client) for client in clients]
    server = await start_server(
        ",".join(urls),
        SERVICE_EXAMPLE_DOWNLOAD_URL=",".join(f"{url}/retrieve" for url in urls),
        **settings,
    )
    await server.hears_clients()
    return server, clients


@pytest.mark.parametrize("link", [True, False], ids=["link", "http"])
async def test_what_a_job_asks_for_is_stored_shown_and_sent_to_its_client(
    start_client: StartClient, start_server: StartServer, link: bool
) -> None:
    server, (client,) = await connected(
        start_client, start_server, Resources(8.0, 16 * GB, 2), link=link
    )
    job = await submit(server, cpus="2.5", memory="4GB", gpus="1")
    payload = await client.next_payload()
    assert client.wanted[payload] == Resources(2.5, 4 * GB, 1)
    shown = await server.get_json(f"/jobs/{job}")
    assert (shown["cpus"], shown["memory_bytes"], shown["gpus"]) == (2.5, 4 * GB, 1)
    (of_client,) = (await server.get_json("/clients"))["clients"]
    assert of_client["resources"] == {"cpus": 8.0, "memory_bytes": 16 * GB, "gpus": 2}
    assert of_client["resources_used"] == {"cpus": 2.5, "memory_bytes": 4 * GB, "gpus": 1}


async def test_job_that_asks_for_nothing_gets_the_defaults_of_its_service(
    start_client: StartClient, start_server: StartServer
) -> None:
    server, (client,) = await connected(
        start_client,
        start_server,
        Resources(8.0, 16 * GB, 2),
        SERVICE_EXAMPLE_CPUS="2",
        SERVICE_EXAMPLE_MEMORY="1GB",
        SERVICE_EXAMPLE_MAX_CPUS="4",
    )
    await submit(server, memory="2GB")
    assert client.wanted[await client.next_payload()] == Resources(2.0, 2 * GB)
    status, answer = await server.post(form(cpus="5"))
    assert status == 400
    assert answer["message"] == "Invalid cpus, should be at most 4 for the service example"


async def test_job_that_no_machine_can_run_is_refused_with_the_largest(
    start_client: StartClient, start_server: StartServer
) -> None:
    server, _ = await connected(
        start_client, start_server, Resources(8.0, 16 * GB), Resources(4.0, 8 * GB, 1)
    )
    status, answer = await server.post(form(gpus="2"))
    assert status == 400
    assert answer["message"] == (
        "No machine of the service example has 2 GPUs; the largest has 4 CPUs, 8 GB of memory,"
        " 1 GPU"
    )
    # No single machine has both.
    assert (await server.post(form(cpus="8", gpus="1")))[0] == 400
    assert server.rows("SELECT id FROM jobs") == []


async def test_job_is_accepted_while_a_machine_is_not_known(start_server: StartServer) -> None:
    server = await start_server("http://127.0.0.1:1")
    job = await submit(server, gpus="4")
    assert (await server.state(job))[0] == "Queued"


async def test_older_client_gets_jobs_that_ask_for_nothing_only(
    start_client: StartClient, start_server: StartServer
) -> None:
    server, (client,) = await connected(start_client, start_server, None)
    status, answer = await server.post(form(cpus="1"))
    assert status == 400
    assert "the largest has no resources" in answer["message"]
    await submit(server)
    assert client.wanted[await client.next_payload()] == NOTHING


async def test_job_waits_for_resources_and_says_so_while_another_one_runs(
    start_client: StartClient, start_server: StartServer
) -> None:
    server, (client,) = await connected(start_client, start_server, Resources(4.0, 8 * GB, 1))
    await submit(server, gpus="1")
    first = await client.next_payload()
    client.report(first, PayloadStatus.RUNNING)
    waits = await submit(server, user=2, gpus="1")
    narrow = await submit(server, user=3)
    # The narrow job shows that a pass has found no room for the other one.
    assert client.wanted[await client.next_payload()] == NOTHING
    assert narrow > waits
    shown = await server.get_json(f"/jobs/{waits}")
    assert shown["waiting"]["reason"].startswith("It asks for 1 GPU, which no machine has free")
    client.complete(first)
    assert client.wanted[await client.next_payload()] == Resources(gpus=1)


async def test_wide_job_is_not_starved_by_narrow_ones(
    start_client: StartClient, start_server: StartServer
) -> None:
    server, (client,) = await connected(
        start_client,
        start_server,
        Resources(4.0, 8 * GB),
        SERVICE_EXAMPLE_RUNS_PER_USER="20",
        SERVICE_EXAMPLE_MAX_RUNS="20",
    )
    for _ in range(4):
        await submit(server, user=1, cpus="1")
    running = [await client.next_payload() for _ in range(4)]
    wide = await submit(server, user=2, cpus="4")
    for _ in range(3):
        await submit(server, user=1, cpus="1")
    for payload in running:
        client.report(payload, PayloadStatus.RUNNING)
    for payload in running:
        client.complete(payload)
        await submit(server, user=1, cpus="1")
    async with asyncio.timeout(60):
        assert client.wanted[await client.next_payload()] == Resources(4.0)
    await server.until(wide, "Submitted")


async def test_cost_of_a_claim_does_not_change_for_a_site_that_asks_for_nothing() -> None:
    queues = SizedQueues(["x", "y"])
    assert queues.begin()
    queues.keep([], ["x", "y"])
    assert not queues.begin()
    queues.add("x")
    assert queues.begin()
    queues.keep(["x"], ["x", "y"])
    assert queues.begin()
    # Queued while the claim was under way: the claim may not have seen it.
    queues.add("x")
    queues.keep([], ["x", "y"])
    assert queues.begin()


SERVICE: dict[str, Any] = {
    "SERVICE_A_UPLOAD_URL": "http://c/submit",
    "SERVICE_A_DOWNLOAD_URL": "http://c/retrieve",
}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("CPUS", "1.5", (Resources(1.5), NOTHING)),
        ("MEMORY", "2GB", (Resources(0, 2 * GB), NOTHING)),
        ("GPUS", "1", (Resources(0, 0, 1), NOTHING)),
        ("MAX_CPUS", "16", (NOTHING, Resources(16.0))),
        ("MAX_MEMORY", "64GB", (NOTHING, Resources(0, 64 * GB))),
        ("MAX_GPUS", "4", (NOTHING, Resources(0, 0, 4))),
    ],
)
def test_settings_of_a_service_are_read(
    name: str, value: str, expected: tuple[Resources, Resources]
) -> None:
    (service,) = read_settings({**SERVICE, f"SERVICE_A_{name}": value}, {}).services.values()
    assert (service.resources, service.max_resources) == expected


@pytest.mark.parametrize("order", list(itertools.permutations(["4", "2", "1"])))
async def test_jobs_go_to_the_machines_that_they_fit_best(
    start_client: StartClient, start_server: StartServer, order: tuple[str, ...]
) -> None:
    server, clients = await connected(
        start_client, start_server, Resources(4.0), Resources(1.0), Resources(2.0)
    )
    for cpus in order:
        await submit(server, cpus=cpus)
    wanted = [client.wanted[await client.next_payload()] for client in clients]
    assert wanted == [Resources(4.0), Resources(1.0), Resources(2.0)]
