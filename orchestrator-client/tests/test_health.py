"""GET /health: an error that names the part of jo-client which does not work."""

import asyncio

from job_orchestrator.client.app import LIFECYCLE
from job_orchestrator.client.workspace.removal import remove_tree
from running_client import Client


async def test_client_without_its_data_folder_is_unhealthy(client: Client) -> None:
    await asyncio.to_thread(remove_tree, client.data)
    async with client.http.get("/health") as response:
        assert response.status == 500
        answer = await response.json()
    assert answer["id"] == 0
    assert answer["message"] == "The data folder can't be written: No such file or directory"


async def test_client_whose_runner_has_stopped_is_unhealthy(client: Client) -> None:
    (runner,) = [loop for loop in client.app[LIFECYCLE].loops if loop.name == "runner"]
    await runner.stop()
    async with client.http.get("/health") as response:
        assert response.status == 500
        assert (await response.json())["message"] == "The runner has stopped; restart the client"
