"""Order of the jobs of a service, through a running server."""

from collections.abc import Sequence

import aiohttp
import pytest

from fake_client import FakeClient, StartClient
from running_server import Server, StartServer, tuned


async def submit(server: Server, user: int, priority: int = 0) -> int:
    form = aiohttp.FormData({"user_id": str(user), "service": "example"})
    form.add_field("priority", str(priority))
    form.add_field("file", b"exit 0\n", filename="run.sh")
    status, answer = await server.post(form)
    assert status == 201, answer
    return int(answer["id"])


async def order_of_starts(
    server: Server, client: FakeClient, jobs: Sequence[tuple[int, int]]
) -> list[int]:
    """Queue jobs of users and priorities behind one that runs; return the users as they start."""
    user_of = {await submit(server, 99): 99}
    running = await client.next_payload()
    for user, priority in jobs:
        user_of[await submit(server, user, priority)] = user
    started = []
    for _ in jobs:
        client.complete(running)
        running = await client.next_payload()
        (uuid, _, _) = client.keys[running].split(".")
        ((job_id,),) = server.rows(f"SELECT id FROM jobs WHERE uuid = '{uuid}'")  # noqa: S608
        started.append(user_of[job_id])
    return started


JOBS = [(1, 1), (1, 0), (1, 0), (2, 7), (2, -3)]
"""User and priority of each job, in the order of arrival."""


@tuned(dispatch_interval_s=0.05)
@pytest.mark.parametrize(
    ("settings", "jobs", "expected"),
    [
        ({}, [(1, 0), (1, 0), (1, 0), (2, 0)], [1, 2, 1, 1]),
        ({"FAIR_HALF_LIFE": "0"}, JOBS, [1, 2, 1, 2, 1]),
        ({"SERVICE_EXAMPLE_POLICY": "fifo"}, JOBS, [1, 1, 1, 2, 2]),
        ({"SERVICE_EXAMPLE_POLICY": "priority", "PRIORITY_AGEING": "0"}, JOBS, [2, 1, 1, 1, 2]),
    ],
)
async def test_jobs_of_all_users_start_in_the_order_of_the_service(
    settings: dict[str, str],
    jobs: list[tuple[int, int]],
    expected: list[int],
    client: FakeClient,
    start_client: StartClient,
    start_server: StartServer,
) -> None:
    client.slots = 1
    server = await start_server(await start_client(client), **settings)
    await server.hears_clients()
    assert await order_of_starts(server, client, jobs) == expected
