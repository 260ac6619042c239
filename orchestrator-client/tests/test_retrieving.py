"""Retrieval of results: as a ZIP, in parts, before the end, and after their removal."""

import asyncio
import hashlib
import json

import pytest

from job_orchestrator.client.workspace.removal import remove_tree
from job_orchestrator.common.protocol.digests import sha256_of
from running_client import Client, StartClient


async def test_trap_30_results_are_served_with_length_range_and_etag(client: Client) -> None:
    payload = (await client.run("head -c 100000 /dev/urandom > out; exit 0\n", key="job.1"))["id"]
    async with client.http.get(f"/retrieve/{payload}") as response:
        whole = await response.read()
        assert response.headers["Content-Type"] == "application/zip"
        assert response.content_length == len(whole)
        assert response.headers["Idempotency-Key"] == "job.1"
        etag = response.headers["ETag"]
    ask = {"Range": "bytes=1000-1999", "If-Range": etag}
    async with client.http.get(f"/retrieve/{payload}", headers=ask) as response:
        assert response.status == 206
        assert await response.read() == whole[1000:2000]


@pytest.mark.parametrize(
    ("script", "path", "settings"),
    [
        ("head -c 100000 /dev/urandom > out; exit 0\n", "retrieve", {}),
        ("head -c 3000000 /dev/urandom > out; exit 0\n", "retrieve", {}),
        ("echo half > out; exit 9\n", "retrieve_partial", {}),
        ("head -c 300000 /dev/urandom; exit 0\n", "retrieve_partial", {"MAX_RESULT_SIZE": "50kB"}),
    ],
    ids=["small", "large", "failed", "output-only"],
)
async def test_results_have_a_digest(
    start_client: StartClient, script: str, path: str, settings: dict[str, str]
) -> None:
    client = await start_client(**settings)
    payload = (await client.run(script))["id"]
    async with client.http.get(f"/{path}/{payload}") as response:
        content = await response.read()
        sent = sha256_of(response.headers["Repr-Digest"])
    assert sent == hashlib.sha256(content).digest()
    ranges = {"Range": "bytes=10-19"}
    async with client.http.get(f"/{path}/{payload}", headers=ranges) as response:
        assert sha256_of(response.headers["Repr-Digest"]) == sent, "it is that of the whole"


@pytest.mark.parametrize(("script", "path"), [("sleep 0.3", "retrieve"), ("sleep 0.3; false", "")])
async def test_time_that_a_script_ran_is_reported_without_the_packing(
    start_client: StartClient, script: str, path: str
) -> None:
    client = await start_client()
    payload = (await client.run(f"{script}\n"))["id"]
    async with client.http.get(f"/retrieve/{payload}") as response:
        said = response.headers["Run-Seconds"] if path else (await response.json())["run_s"]
    assert 0.3 <= float(said) < 30


async def test_output_of_a_running_payload_has_a_digest(client: Client) -> None:
    payload = await client.submit("echo so far; sleep 4713.2\n")
    await client.until(payload, "Running")
    async with client.http.get(f"/retrieve_partial/{payload}") as response:
        content = await response.read()
        assert sha256_of(response.headers["Repr-Digest"]) == hashlib.sha256(content).digest()
    await client.kill(payload)


async def test_state_of_a_payload_without_results_is_json_with_its_key(client: Client) -> None:
    payload = (await client.run("exit 9\n", key="job.7"))["id"]
    async with client.http.get(f"/retrieve/{payload}") as response:
        assert response.headers["Idempotency-Key"] == "job.7"
        answer = await response.json()
    assert (answer["status"], answer["exit_code"]) == ("Failed", 9)
    assert answer["message"] == "run.sh exited with code 9"


async def test_trap_38_output_of_a_failed_payload_can_be_fetched(client: Client) -> None:
    payload = (await client.run("echo half > out; kill -KILL $$\n"))["id"]
    archive = await client.archive(payload)
    assert archive.read("out") == b"half\n"
    record = json.loads(archive.read(".orchestrator/result.json"))
    assert (record["exit_code"], record["signal"]) == (137, 9)


@pytest.mark.parametrize("state", ["Prepared", "Invalid", "Killed"])
async def test_partial_results_exist_in_every_state(start_client: StartClient, state: str) -> None:
    client = await start_client(SLOTS="1")
    first = await client.submit("sleep 4713.1\n")
    payload = await client.submit("sudo ls\n" if state == "Invalid" else "exit 0\n")
    if state == "Killed":
        assert (await client.kill(payload))["status"] == "Killed"
    if state == "Invalid":
        await client.kill(first)
        await client.run("exit 0\n")
    assert (await client.get(payload))["status"] == state
    assert (await client.archive(payload)).namelist()[0] == "run.sh"
    await client.kill(first)


async def test_results_that_somebody_removed_are_an_error_with_id_0(client: Client) -> None:
    payload = (await client.run("head -c 100000 /dev/urandom > out; exit 0\n"))["id"]
    for folder in client.data.iterdir():
        await asyncio.to_thread(remove_tree, folder)
    for path in (f"/retrieve/{payload}", f"/retrieve_partial/{payload}"):
        async with client.http.get(path) as response:
            assert response.status == 404
            assert (await response.json())["id"] == 0


async def test_small_results_outlast_their_files_until_they_are_acknowledged(
    client: Client,
) -> None:
    payload = (await client.run("echo well > out; exit 0\n"))["id"]
    assert list(client.data.glob("*/results.zip")) == []
    for folder in client.data.iterdir():
        await asyncio.to_thread(remove_tree, folder)
    assert (await client.archive(payload, "retrieve")).read("out") == b"well\n"
    async with client.http.delete(f"/retrieve/{payload}") as response:
        assert response.status == 200
    for path in (f"/retrieve/{payload}", f"/retrieve_partial/{payload}"):
        async with client.http.get(path) as response:
            assert response.content_type == "application/json"
            assert b"PK" not in await response.read()


async def test_trap_12_killing_what_has_ended_changes_nothing_and_says_so(client: Client) -> None:
    payload = await client.run("exit 0\n")
    answer = await client.kill(payload["id"])
    assert answer["status"] == "Completed"
    assert answer["message"] == f"Payload {payload['id']} had already ended as Completed."
    assert answer["killed"] is False
    assert (await client.archive(payload["id"], "retrieve")).testzip() is None


async def test_payload_is_removed_once_and_that_is_final(client: Client) -> None:
    payload = (await client.run("exit 0\n", key="job.1"))["id"]
    for _ in range(2):
        async with client.http.delete(f"/retrieve/{payload}") as response:
            assert (await response.json())["status"] == "Cleaned"
    assert (await client.get(payload))["status"] == "Cleaned"
    assert (await client.kill(payload))["status"] == "Cleaned"
    # A late repeat of its submission returns it and runs nothing.
    assert (await client.post("exit 0\n", key="job.1"))[1]["id"] == payload
