"""The inventory: all payloads that the client has, with their keys."""

from running_client import Client, StartClient


async def test_inventory_lists_what_waits_runs_and_has_ended(start_client: StartClient) -> None:
    client = await start_client(SLOTS="1")
    ended = (await client.run("exit 3\n", key="job.1"))["id"]
    running = await client.submit("sleep 4714.1\n", key="job.2")
    await client.until(running, "Running")
    waiting = await client.submit("exit 0\n")
    async with client.http.get("/payloads") as response:
        assert response.status == 200
        assert await response.json() == [
            {"id": ended, "key": "job.1", "status": "Failed"},
            {"id": running, "key": "job.2", "status": "Running"},
            {"id": waiting, "key": None, "status": "Prepared"},
        ]


async def test_inventory_leaves_out_payloads_whose_files_were_removed(client: Client) -> None:
    payload = (await client.run("exit 0\n", key="job.1"))["id"]
    async with client.http.delete(f"/retrieve/{payload}") as response:
        assert response.status == 200
    async with client.http.get("/payloads") as response:
        assert await response.json() == []
