"""Jobs that wait for other jobs: what their clients get, and what their users see."""

import io
import zipfile
from typing import Any

import aiohttp
import pytest

from fake_client import FakeClient, StartClient, zip_of
from job_orchestrator.common.protocol import link
from job_orchestrator.common.status import PayloadStatus
from running_server import Server, StartServer, in_both_forms


def form(*names: str, **fields: str) -> aiohttp.FormData:
    """Return the form of a job, with further files of these names."""
    form = aiohttp.FormData({"user_id": "1", "service": "example", **fields}, quote_fields=False)
    for name in ("run.sh", *names):
        form.add_field(name, b"exit 0\n", filename=name)
    return form


async def submit(server: Server, *names: str, **fields: str) -> int:
    status, answer = await server.post(form(*names, **fields))
    assert status == 201, answer
    return int(answer["id"])


async def detail(server: Server, job_id: int) -> dict[str, Any]:
    found: dict[str, Any] = await server.get_json(f"/jobs/{job_id}")
    return found


async def finish(server: Server, client: FakeClient, results: bytes) -> None:
    """Complete the next payload."""
    payload = await client.next_payload()
    client.results[payload] = results
    client.report(payload, PayloadStatus.COMPLETED, exit_code=0)


@in_both_forms
async def test_dependent_job_gets_the_results_of_the_jobs_before_it(
    server: Server, client: FakeClient
) -> None:
    results = {"out/a": "1", ".orchestrator/stdout": "2", ".inputs/9/old": "3", "run.sh": "4"}
    first = await submit(server)
    first_payload = await client.next_payload()
    second = await submit(server)
    third = await submit(server, "data", after=f"{first}, {second}")
    shown = await detail(server, third)
    assert (shown["status"], shown["after"], shown["afterany"]) == ("Queued", [1, 2], [])
    assert shown["waiting"]["reason"] == "It waits for jobs 1, 2"
    assert "expected_start" not in shown["waiting"] or shown["waiting"]["expected_start"] is None
    assert await server.state(third) == ("Queued", "It waits for jobs 1, 2")
    client.complete(first_payload, **results)
    await server.ended(first)
    assert (await server.state(third))[1] == "It waits for 1 of the jobs 1, 2"
    await finish(server, client, zip_of(b="5"))
    payload = await client.next_payload()
    assert client.files[payload] == {
        "run.sh": b"exit 0\n",
        "data": b"exit 0\n",
        ".inputs/1/out/a": b"1",
        ".inputs/1/.orchestrator/stdout": b"2",
        ".inputs/1/run.sh": b"4",
        ".inputs/2/b": b"5",
    }
    await server.eventually(lambda: not any("incoming" in name for name in server.folders()))
    client.complete(payload)
    assert await server.ended(third) == ("Completed", "")


async def test_small_results_go_over_the_link_and_large_ones_by_http(
    client: FakeClient, start_client: StartClient, start_server: StartServer
) -> None:
    client.offers_link = True
    server = await start_server(await start_client(client))
    await client.connected.wait()
    for size, over_link in ((10, True), (100_000, False)):
        first = await submit(server)
        await submit(server, after=str(first))
        await finish(server, client, zip_of(out="x" * size))
        payload = await client.next_payload()
        assert client.files[payload][f".inputs/{first}/out"] == b"x" * size
        assigned = sum(isinstance(item, link.Assign) for item in client.links[0].received)
        assert assigned == (2 if over_link else 3)
        client.complete(payload)


@in_both_forms
@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a\\b", "x\x01"])
async def test_names_in_results_that_could_escape_fail_the_job_that_needs_them(
    server: Server, client: FakeClient, name: str
) -> None:
    first = await submit(server)
    second = await submit(server, after=str(first))
    await finish(server, client, zip_of(**{"good": "", name: "1"}))
    status, message = await server.ended(second)
    assert status == "Failed"
    assert message.startswith("The results of job 1, which it needs, can't be used: Invalid file")
    assert client.submitted.empty()


async def test_results_larger_than_their_directory_says_fail_the_job_that_needs_them(
    server: Server, client: FakeClient
) -> None:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(100_000))
    # The size in the directory, which is the second place where it is.
    at = whole.getvalue().rindex((100_000).to_bytes(4, "little"))
    content = bytearray(whole.getvalue())
    content[at : at + 4] = (10).to_bytes(4, "little")
    first = await submit(server)
    second = await submit(server, after=str(first))
    await finish(server, client, bytes(content))
    status, message = await server.ended(second)
    assert status == "Failed"
    assert "has another size than its directory says" in message


async def test_results_beyond_the_limit_of_uploads_fail_the_job_that_needs_them(
    client: FakeClient, start_client: StartClient, start_server: StartServer
) -> None:
    server = await start_server(await start_client(client), MAX_UPLOAD_SIZE="1kB")
    await client.connected.wait()
    first = await submit(server)
    second = await submit(server, after=str(first))
    await finish(server, client, zip_of(out="x" * 1500))
    status, message = await server.ended(second)
    assert status == "Failed"
    assert message.endswith("too large (MAX_UPLOAD_SIZE)")


async def test_failed_job_fails_those_that_need_it_and_runs_those_that_only_follow_it(
    server: Server, client: FakeClient
) -> None:
    first = await submit(server)
    second = await submit(server, after=str(first))
    third = await submit(server, after=str(second))
    last = await submit(server, afterany=str(third))
    client.report(await client.next_payload(), PayloadStatus.FAILED, exit_code=3)
    assert await server.ended(third) == (
        "Failed",
        "Job 2, which had to complete before it, is Failed",
    )
    payload = await client.next_payload()
    assert client.names[payload] == {"run.sh"}
    await server.until(last, "Submitted")


async def test_dependent_job_can_be_terminated_and_ends_those_after_it(
    server: Server, client: FakeClient
) -> None:
    first = await submit(server)
    second = await submit(server, after=str(first))
    third = await submit(server, after=str(second))
    async with server.http.post(f"/terminate/{second}") as response:
        assert (await response.json())["status"] == "Killed"
    assert await server.ended(third) == (
        "Failed",
        "Job 2, which had to complete before it, is Killed",
    )


@pytest.mark.parametrize("field", ["after", "afterany"])
@pytest.mark.parametrize(
    ("value", "names", "message"),
    [
        ("soon", (), "should be ids of jobs with commas: 12,13"),
        ("1,,2", (), "should be ids of jobs with commas: 12,13"),
        ("-1", (), "should be ids of jobs with commas: 12,13"),
        (",".join(map(str, range(101))), (), "should be at most 100 jobs"),
        ("7", (), "there is no job 7 of user 1"),
        ("7", (".inputs/7/x",), "the results of other jobs are put there"),
    ],
)
async def test_submit_invalid_dependency_is_a_400_and_leaves_nothing(
    idle_server: Server, field: str, value: str, names: tuple[str, ...], message: str
) -> None:
    status, answer = await idle_server.post(form(*names, **{field: value}))
    assert status == 400
    assert message in answer["message"]
    assert idle_server.rows() == []
    assert idle_server.folders() == []
