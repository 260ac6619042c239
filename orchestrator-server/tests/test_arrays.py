"""Arrays of jobs: one upload, tasks with an index, and their results in one ZIP."""

import io
import zipfile
from collections.abc import Sequence
from typing import Any

import aiohttp
import pytest

from fake_client import FakeClient, StartClient, answering
from job_orchestrator.common.messages.arrays import ArrayTask
from job_orchestrator.common.status import PayloadStatus
from running_server import Server, StartServer, in_both_forms, tuned


def form(array: str, **fields: str) -> aiohttp.FormData:
    values = {"user_id": "1", "service": "example", "array": array, **fields}
    form = aiohttp.FormData(values, quote_fields=False)
    for name in ("run.sh", "data"):
        form.add_field(name, b"exit 0\n", filename=name)
    return form


async def submit(server: Server, array: str, **fields: str) -> dict[str, Any]:
    status, answer = await server.post(form(array, **fields))
    assert status == 201, answer
    ids: dict[str, Any] = answer["array"]
    return ids


async def array(server: Server, array_id: int, wait: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = await server.get_json(f"/arrays/{array_id}?wait={wait}")
    return found


async def payloads(client: FakeClient, count: int) -> Sequence[int]:
    """Return the next payloads, which may arrive in any order, in that of their indexes."""
    found = [await client.next_payload() for _ in range(count)]
    return sorted(found, key=lambda each: task.index if (task := client.tasks[each]) else -1)


async def archive(server: Server, array_id: int) -> zipfile.ZipFile:
    async with server.http.get(f"/arrays/{array_id}/download") as response:
        assert (response.status, response.content_type) == (200, "application/zip")
        name = f'filename="array-{array_id}-results.zip"'
        assert name in response.headers["Content-Disposition"]
        found = zipfile.ZipFile(io.BytesIO(await response.read()))
    assert found.testzip() is None
    return found


@in_both_forms
async def test_each_task_gets_the_files_and_its_index(server: Server, client: FakeClient) -> None:
    status, answer = await server.post(form("4,1-2"))
    assert status == 201
    assert answer == {
        "id": 1,
        "status": "Queued",
        "message": "Array of 3 tasks successfully uploaded",
        "array": {"id": 1, "first": 1, "last": 3, "size": 3},
    }
    received = await payloads(client, 3)
    files = {"run.sh": b"exit 0\n", "data": b"exit 0\n"}
    assert [client.files[each] for each in received] == [files] * 3
    assert [client.tasks[each] for each in received] == [
        ArrayTask(1, index, 3) for index in (1, 2, 4)
    ]
    shown = await server.get_json("/jobs/3")
    assert (shown["array_id"], shown["array_index"]) == (1, 4)
    listed = await server.get_json("/jobs?array=1&limit=2")
    assert ([job["id"] for job in listed["jobs"]], listed["next"]) == ([3, 2], "2")
    assert len({name.split("/")[0] for name in server.folders()}) <= 1


async def test_small_files_of_tasks_go_over_the_link(
    client: FakeClient, start_client: StartClient, start_server: StartServer
) -> None:
    client.offers_link = True
    server = await start_server(await start_client(client))
    await client.connected.wait()
    await submit(server, "7-8")
    assert [client.tasks[each] for each in await payloads(client, 2)] == [
        ArrayTask(1, 7, 2),
        ArrayTask(1, 8, 2),
    ]


@in_both_forms
async def test_results_of_completed_tasks_are_one_zip(server: Server, client: FakeClient) -> None:
    await submit(server, "1-4%3")
    first, second, third = await payloads(client, 3)
    client.complete(second, out="2", **{"deep/er": "x" * 70_000, "empty/": ""})
    client.report(first, PayloadStatus.FAILED, exit_code=3, message="run.sh exited with code 3")
    await server.ended(1)
    await server.ended(2)
    found = await archive(server, 1)
    assert {name: found.read(name) for name in found.namelist()} == {
        "2/out": b"2",
        "2/deep/er": b"x" * 70_000,
        "2/empty/": b"",
        "MISSING.txt": b"1 (job 1): Failed: run.sh exited with code 3\n"
        + b"3 (job 3): Submitted: Waits for a free slot on a machine\n"
        + found.read("MISSING.txt").splitlines(keepends=True)[-1],
    }
    fourth = await client.next_payload()
    for each in (third, fourth):
        client.complete(each)
    ended = await array(server, 1, wait=60)
    assert (ended["unended"], ended["counts"]) == (0, {"Completed": 3, "Failed": 1})
    assert len((await archive(server, 1)).namelist()) == 6


async def test_no_more_tasks_are_active_than_the_user_wants(
    server: Server, client: FakeClient
) -> None:
    await submit(server, "1-5%2")
    active = list(await payloads(client, 2))
    shown = await server.get_json("/jobs/3")
    reason = "It waits until fewer tasks of its array 1 are active"
    assert (shown["status"], shown["waiting"]["reason"]) == ("Queued", reason)
    for _ in range(3):
        assert client.submitted.empty()
        client.complete(active.pop())
        active += await payloads(client, 1)


async def test_all_tasks_are_terminated_together(server: Server, client: FakeClient) -> None:
    await submit(server, "1-300%2")
    await payloads(client, 2)
    async with server.http.post("/arrays/1/terminate") as response:
        assert response.status == 200
        answer = await response.json()
    assert (answer["unended"], answer["counts"]) == (0, {"Killed": 300})
    statuses = {payload.status for payload in client.payloads.values()}
    assert (len(client.payloads), statuses) == (2, {PayloadStatus.KILLED})
    assert client.submitted.empty()


async def test_repeat_with_the_key_is_the_same_array(server: Server) -> None:
    answers = [await server.post(form("1-3"), **{"Idempotency-Key": "k"}) for _ in range(2)]
    assert [status for status, _ in answers] == [201, 200]
    assert answers[0][1]["array"] == answers[1][1]["array"]
    assert answers[1][1]["message"] == "Array of 3 tasks already uploaded"
    assert len(server.rows()) == 3


@pytest.mark.parametrize(
    ("field", "problem"),
    [
        ("1-", "should be indexes"),
        ("a", "should be indexes"),
        ("1,,2", "should be indexes"),
        ("-1", "should be indexes"),
        ("1-5%0", "should be indexes"),
        ("1-5%", "should be indexes"),
        ("1-5%x", "should be indexes"),
        ("1234567890", "should be indexes"),
        ("5-1", "the range 5-1 ends before it begins"),
        ("1-3,2", "the index 2 is named twice"),
        ("1-999999999", "should have at most 1000 tasks"),
        ("0-1000", "should have at most 1000 tasks"),
    ],
)
async def test_wrong_array_is_refused_and_leaves_nothing(
    server: Server, field: str, problem: str
) -> None:
    status, answer = await server.post(form(field))
    assert (status, problem in answer["message"]) == (400, True), answer
    assert (server.rows(), server.folders()) == ([], [])


async def test_array_is_found_by_the_id_of_its_first_task_only(server: Server) -> None:
    await submit(server, "1-2")
    for path in ("/arrays/2", "/arrays/3", "/arrays/2/download"):
        async with server.http.get(path) as response:
            assert response.status == 404
    async with server.http.get("/jobs?array=x") as response:
        assert response.status == 400


async def test_job_after_an_array_gets_the_results_of_its_tasks(
    server: Server, client: FakeClient
) -> None:
    ids = await submit(server, "3-4")
    status, answer = await server.upload()
    job_form = aiohttp.FormData({"user_id": "1", "service": "example", "after": "1"})
    job_form.add_field("run.sh", b"exit 0\n", filename="run.sh")
    status, answer = await server.post(job_form)
    assert status == 201
    _, first, second = await payloads(client, 3)
    assert (await server.state(answer["id"]))[1] == f"It waits for job {ids['id']}"
    client.complete(first, out="3")
    client.complete(second, out="4")
    third = await client.next_payload()
    assert client.files[third] == {
        "run.sh": b"exit 0\n",
        ".inputs/1/3/out": b"3",
        ".inputs/1/4/out": b"4",
    }


async def test_array_is_refused_if_no_machine_passes_the_index_to_scripts(
    client: FakeClient, start_client: StartClient, start_server: StartServer
) -> None:
    client.arrays = False
    server = await start_server(await start_client(client))
    await server.hears_clients()
    status, answer = await server.post(form("1-2"))
    assert status == 400
    assert answer["message"].startswith("No machine of the service example runs arrays")


async def test_older_machine_gets_other_jobs_and_no_tasks(
    start_client: StartClient, start_server: StartServer
) -> None:
    old, new = FakeClient(), FakeClient()
    old.arrays, new.slots = False, 1
    server = await start_server(f"{await start_client(old)},{await start_client(new)}")
    await server.hears_clients()
    await submit(server, "1-3")
    (first,) = await payloads(new, 1)
    single = await server.submit(user=2)
    (other,) = await payloads(old, 1)
    assert old.tasks[other] is None
    old.complete(other)
    await server.ended(single)
    for _ in range(2):
        new.complete(first)
        (first,) = await payloads(new, 1)
    new.complete(first)
    assert (await array(server, 1, wait=60))["counts"] == {"Completed": 3}
    assert old.submitted.empty()


async def test_task_waits_with_a_reason_while_no_machine_runs_tasks(
    client: FakeClient, start_client: StartClient, start_server: StartServer
) -> None:
    client.instead["events"] = answering(503)
    server = await start_server(await start_client(client))
    await submit(server, "1-2")
    client.arrays = False
    client.come_back()
    await server.hears_clients()
    reason = "No machine of this service that can be used now runs tasks of arrays"
    assert reason in (await server.state(1))[1]
    assert client.submitted.empty()


@in_both_forms
@tuned(retention_interval_s=0.05)
async def test_files_of_an_array_are_removed_with_its_last_task(
    client: FakeClient, start_client: StartClient, start_server: StartServer
) -> None:
    server = await start_server(await start_client(client), MAX_AGE="1")
    await submit(server, "1-2")
    first, second = await payloads(client, 2)
    client.complete(first)
    await server.ended(1)
    await server.until(1, "Cleaned")
    assert server.rows("SELECT kept FROM arrays") == [(1,)]
    client.complete(second)
    await server.until(2, "Cleaned")
    await server.eventually(lambda: not server.folders())
    assert server.rows("SELECT * FROM array_inputs") == []
    assert server.rows("SELECT stored_bytes, queued FROM usage") == [(0, 0)]


async def test_array_of_which_each_task_waits_for_many_jobs_is_refused(
    server: Server, client: FakeClient
) -> None:
    after = ",".join(map(str, range(1, 101)))
    status, answer = await server.post(form("1-101", after=after))
    assert status == 400
    assert "tasks times jobs may be at most 10000" in answer["message"]
