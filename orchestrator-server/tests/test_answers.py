"""HTTP answers for portals: downloads, waiting, termination, health, documents."""

import asyncio
import io
import zipfile
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

from fake_client import Answer, FakeClient, answering, hang_up, never
from job_orchestrator.common.errors import StartupError
from job_orchestrator.common.status import PayloadStatus
from job_orchestrator.server import keys
from job_orchestrator.server.tuning import Tuning
from running_server import Server, StartServer, in_both_forms, in_folders


async def completed(server: Server, client: FakeClient) -> int:
    job = await server.submit()
    client.complete(await client.next_payload(), out="0123456789" * 100)
    assert await server.ended(job) == ("Completed", "")
    return job


@in_both_forms
async def test_trap_30_results_are_served_with_ranges_and_validators(
    server: Server, client: FakeClient
) -> None:
    job = await completed(server, client)
    async with server.http.get(f"/download/{job}") as response:
        whole = await response.read()
        assert response.content_type == "application/zip"
        assert response.content_length == len(whole)
        assert response.headers["Accept-Ranges"] == "bytes"
        assert response.headers["Content-Disposition"] == (
            f'attachment; filename="job-{job}-results.zip"'
        )
        tag = response.headers["ETag"]
    part = {"Range": "bytes=10-19"}
    async with server.http.get(f"/download/{job}", headers=part) as response:
        assert response.status == 206
        assert await response.read() == whole[10:20]
    stale = {**part, "If-Range": "Wed, 21 Oct 2015 07:28:00 GMT"}
    async with server.http.get(f"/download/{job}", headers=stale) as response:
        assert response.status == 200
        assert await response.read() == whole
    for validator, status in ((tag, 206), ('"of-other-results"', 200)):
        headers = {**part, "If-Range": validator}
        async with server.http.get(f"/download/{job}", headers=headers) as response:
            assert response.status == status
            assert await response.read() == (whole[10:20] if status == 206 else whole)
    long_ago, later = "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2099 07:28:00 GMT"
    for headers, status in (
        ({"If-None-Match": tag}, 304),
        ({"If-None-Match": f'"a", W/{tag}'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"a"', "If-Modified-Since": later}, 200),
        ({"If-Modified-Since": later}, 304),
        ({"If-Modified-Since": long_ago}, 200),
        ({"If-Match": tag}, 200),
        ({"If-Match": f"W/{tag}"}, 412),
        ({"If-Match": '"a"'}, 412),
        ({"If-Unmodified-Since": long_ago}, 412),
        ({"If-Unmodified-Since": later}, 200),
    ):
        async with server.http.get(f"/download/{job}", headers=headers) as response:
            assert (headers, response.status) == (headers, status)
            assert await response.read() == (whole if status == 200 else b"")
            assert response.headers["ETag"] == tag


@in_both_forms
@pytest.mark.parametrize(
    ("requested", "status", "part"),
    [
        ("bytes=0-0", 206, slice(0, 1)),
        ("bytes=-3", 206, slice(-3, None)),
        ("bytes=5-", 206, slice(5, None)),
        ("Bytes= 5-9", 206, slice(5, 10)),
        ("bytes=0-99999999999999999999", 206, slice(None)),
        (f"bytes=0-{'9' * 5000}", 206, slice(None)),
        (f"bytes=-{'9' * 5000}", 206, slice(None)),
        (f"bytes={'0' * 5000}1-1", 206, slice(1, 2)),
        ("bytes=-0", 416, None),
        ("bytes=1000000-", 416, None),
        (f"bytes={'9' * 5000}-", 416, None),
        ("bytes=9-5", 416, None),
        ("bytes=0-1,4-5", 200, slice(None)),
        ("lines=0-1", 200, slice(None)),
        ("bytes=x-y", 200, slice(None)),
        ("bytes=-", 200, slice(None)),
        ("bytes", 200, slice(None)),
    ],
)
async def test_trap_30_ranges_are_read_as_rfc_9110_defines_them(
    server: Server, client: FakeClient, requested: str, status: int, part: slice | None
) -> None:
    job = await completed(server, client)
    async with server.http.get(f"/download/{job}") as response:
        whole = await response.read()
        tag = response.headers["ETag"]
    async with server.http.get(f"/download/{job}", headers={"Range": requested}) as response:
        assert response.status == status
        body = await response.read()
        content_range = response.headers.get("Content-Range")
    if part is None:
        assert content_range == f"bytes */{len(whole)}"
    else:
        assert body == whole[part]
        first, last, _ = part.indices(len(whole))
        expected = None if status == 200 else f"bytes {first}-{last - 1}/{len(whole)}"
        assert content_range == expected
    for validator, expected_status in (
        (tag, status),
        ('"other"', 200),
        (f"W/{tag}", 200),
        ("no date", 200),
    ):
        headers = {"Range": requested, "If-Range": validator}
        async with server.http.get(f"/download/{job}", headers=headers) as response:
            assert response.status == expected_status


@in_folders
async def test_removed_results_are_a_404_in_json(server: Server, client: FakeClient) -> None:
    job = await completed(server, client)
    (results,) = (server.root / "data").glob("*/output-1.zip")
    results.unlink()
    async with server.http.get(f"/download/{job}") as response:
        assert response.status == 404
        answer = await response.json()
        assert answer["message"] == "The results of job 1 are missing from the server's storage"


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/download/7", 404, "Job 7 not found in the database"),
        ("/download/x", 400, "Invalid job id 'x', should be a number"),
        ("/download/-1", 400, "Invalid job id '-1', should be a number"),
        ("/download/1?wait=61", 400, "Invalid wait '61', should be seconds from 0 to 60"),
        ("/download/1?wait=nan", 400, "Invalid wait 'nan', should be seconds from 0 to 60"),
        ("/download_partial/7", 404, "Job 7 not found in the database"),
    ],
)
async def test_bad_request_for_a_job_is_answered_with_the_reason(
    idle_server: Server, path: str, status: int, message: str
) -> None:
    async with idle_server.http.get(path) as response:
        assert response.status == status
        answer = await response.json()
        assert (answer["status"], answer["message"]) == ("Unknown", message)


async def test_wait_answers_when_the_job_ends_and_immediately_for_an_ended_job(
    server: Server, client: FakeClient
) -> None:
    job = await server.submit()
    waiting = asyncio.create_task(server.state(job, wait=60))
    payload = await client.next_payload()
    client.report(payload, PayloadStatus.RUNNING)
    await server.until(job, "Running")
    assert not waiting.done()
    client.complete(payload)
    assert (await waiting)[0] == "Completed"
    assert (await server.state(job, wait=60))[0] == "Completed"


async def test_wait_that_expires_answers_the_present_state(idle_server: Server) -> None:
    job = await idle_server.submit()
    status, _ = await idle_server.state(job, wait=0.05)
    assert status in ("Queued", "Processing")  # Processing while its client is tried


async def test_state_of_a_queued_job_says_how_many_jobs_are_ahead(
    client: FakeClient,
    start_client: Callable[[FakeClient], Awaitable[str]],
    start_server: StartServer,
) -> None:
    server = await start_server(await start_client(client), SERVICE_EXAMPLE_RUNS_PER_USER="1")
    for _ in range(3):
        await server.submit()
    # The first one is being sent, or is at its client: the others wait for it.
    await client.next_payload()
    _, message = await server.state(3)
    assert message.startswith("1 of this user's jobs for example is ahead")


async def test_queued_job_has_no_partial_output(idle_server: Server) -> None:
    job = await idle_server.submit()
    async with idle_server.http.get(f"/download_partial/{job}") as response:
        assert response.status == 404


async def test_partial_output_of_a_running_job_comes_from_its_client(
    server: Server, client: FakeClient
) -> None:
    job = await server.submit()
    await client.next_payload()
    await server.until(job, "Submitted")
    async with server.http.get(f"/download_partial/{job}") as response:
        archive = zipfile.ZipFile(io.BytesIO(await response.read()))
        assert archive.namelist() == ["partial"]


@pytest.mark.parametrize(
    ("answer", "status", "tuning"),
    [
        (hang_up, 502, Tuning()),
        (answering(500), 502, Tuning()),
        (never, 504, Tuning(packing_timeout_s=0.1)),
    ],
)
async def test_partial_output_of_a_failing_client_is_a_gateway_error(
    server: Server, client: FakeClient, answer: Answer, status: int
) -> None:
    job = await server.submit()
    await client.next_payload()
    await server.until(job, "Submitted")
    client.instead["partial"] = answer
    async with server.http.get(f"/download_partial/{job}") as response:
        assert response.status == status
        body = await response.json()
        assert (body["id"], body["status"]) == (job, "Submitted")


async def test_partial_output_that_breaks_off_at_the_client_breaks_off_for_the_reader(
    server: Server, client: FakeClient
) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/zip"})
        response.content_length = 1000
        await response.prepare(request)
        await response.write(b"PK")
        assert request.transport is not None
        request.transport.close()
        return response

    job = await server.submit()
    await client.next_payload()
    await server.until(job, "Submitted")
    client.instead["partial"] = cut
    # The missing part is not replaced by the JSON of an error.
    async with server.http.get(f"/download_partial/{job}") as response:
        assert (response.status, response.content_length) == (200, 1000)
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_health_is_500_after_a_loop_has_stopped(server: Server) -> None:
    async with server.http.get("/health") as response:
        assert response.status == 200
        assert (await response.json())["status"] == "healthy"
    (dispatcher,) = [each for each in server.app[keys.HEALTH].loops if each.name == "dispatcher"]
    await dispatcher.stop()
    async with server.http.get("/health") as response:
        assert response.status == 500
        answer = await response.json()
        assert answer == {
            "id": 0,
            "status": "Unknown",
            "message": "The dispatcher has stopped; restart the server",
        }
    async with server.http.get("/") as response:
        assert (await response.json())["message"] == "pong"


async def test_stop_of_the_server_answers_waiting_requests(server: Server) -> None:
    job = await server.submit()
    waiting = asyncio.create_task(server.state(job, wait=60))
    await server.eventually(lambda: server.app[keys.FEED].waiters == 1)
    await server.app.shutdown()
    assert (await waiting)[0] in ("Queued", "Processing", "Submitted")


async def test_second_server_on_the_same_folder_is_refused_and_disturbs_no_upload(
    idle_server: Server, start_server: StartServer
) -> None:
    arriving = idle_server.root / "data" / "incoming" / "upload"
    arriving.mkdir()
    with pytest.raises(StartupError, match="Another jo-server uses DATA_PATH"):
        await start_server("http://127.0.0.1:9")
    assert arriving.exists()


async def test_partial_results_of_a_busy_client_are_a_503_with_retry_after(
    server: Server, client: FakeClient
) -> None:
    job = await server.submit()
    await client.next_payload()
    await server.until(job, "Submitted")
    client.instead["partial"] = answering(503, '{"message": "being fetched already"}')
    async with server.http.get(f"/download_partial/{job}") as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "5")
        assert "being fetched already" in (await response.json())["message"]
