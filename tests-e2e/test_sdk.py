"""Client library with real services, over connections that break."""

import asyncio
import io
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from breaking_proxy import BreakingProxy
from harness import Service, StartClient, content
from job_orchestrator.sdk import (
    AlreadyEnded,
    AsyncClient,
    Client,
    ConnectionBroken,
    Files,
    JobNotFound,
    JobStatus,
    LocalStorageFailed,
    NotAJobServer,
    NotCompleted,
    OutputNotFound,
    Refused,
    ServerUnreachable,
    UnusableFiles,
)

ECHO = b"cat in/x.txt > out.txt\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty folder."""
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


@pytest.fixture
async def client(server: Service) -> AsyncIterator[AsyncClient]:
    """Connect the library to a server with one client."""
    async with AsyncClient(server.url, patience_s=120) as client:
        yield client


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_submit_of_paths_bytes_and_open_files_sends_their_content(
    client: AsyncClient, folder: Path
) -> None:
    (folder / "on-disk.txt").write_bytes(b"disk")
    with tempfile.SpooledTemporaryFile() as spooled:
        spooled.write(b"skipped|spooled")
        spooled.seek(len(b"skipped|"))
        job = await client.submit(
            "example",
            {
                "run.sh": b"true\n",
                "a/bytes.txt": b"bytes",
                "per%22cent/café%0A.txt": b"odd",
                "a/b/path.txt": folder / "on-disk.txt",
                "text.txt": str(folder / "on-disk.txt"),
                "open.txt": spooled,
            },
            user_id=1,
        )
        assert not spooled.closed
    assert job.status is JobStatus.QUEUED
    assert (await client.wait(job.id, timeout_s=120)).status is JobStatus.COMPLETED
    results = await client.download(job.id, folder / "results.zip")
    found = {
        name: content(results, name)
        for name in (
            "a/bytes.txt",
            "a/b/path.txt",
            "text.txt",
            "open.txt",
            "per%22cent/café%0A.txt",
        )
    }
    assert found == {
        "a/bytes.txt": b"bytes",
        "a/b/path.txt": b"disk",
        "text.txt": b"disk",
        "open.txt": b"spooled",
        "per%22cent/café%0A.txt": b"odd",
    }
    assert names(folder) == ["on-disk.txt", "results.zip"]


async def test_submit_of_a_folder_or_of_paths_fills_the_folder_of_the_job(
    client: AsyncClient, tmp_path: Path
) -> None:
    folder = tmp_path / "job"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "x.txt").write_bytes(b"x")
    (folder / "run.sh").write_bytes(ECHO)
    (folder / "in" / "link.txt").symlink_to("x.txt")
    sources: tuple[Files, ...] = (folder, [folder / "run.sh", str(folder / "in")])
    for files in sources:
        job = await client.submit("example", files, user_id=1)
        await client.wait(job.id)
        results = await client.download(job.id, tmp_path / "results.zip", overwrite=True)
        assert content(results, "out.txt") == content(results, "in/link.txt") == b"x"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"a.txt": b""}, "There is no run.sh at the top of the job's files \\(found: a.txt\\)"),
        ({"run.sh": b"", "../x": b""}, "Invalid file name '../x'"),
        ({"run.sh": b"", "a": b"", "a/b": b""}, "'a' is a file and a folder at once"),
        ({"run.sh": "/nowhere/run.sh"}, "/nowhere/run.sh can't be read: No such file"),
        (["/nowhere"], "/nowhere can't be read: No such file"),
        (["/dev/null"], "/dev/null is not a regular file; leave it out"),
    ],
)
async def test_unusable_files_are_refused_before_anything_is_sent(
    files: object, reason: str
) -> None:
    # Nothing listens on this port.
    async with AsyncClient("http://127.0.0.1:9", patience_s=0) as client:
        with pytest.raises(UnusableFiles, match=reason):
            await client.submit("example", files, user_id=1)  # type: ignore[arg-type]


async def test_link_to_a_containing_folder_is_refused(
    tmp_path: Path,
) -> None:
    (tmp_path / "run.sh").touch()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "up").symlink_to(tmp_path)
    async with AsyncClient("http://127.0.0.1:9", patience_s=0) as client:
        with pytest.raises(UnusableFiles, match="up is a link to a folder that contains it"):
            await client.submit("example", tmp_path, user_id=1)


async def test_job_after_others_gets_their_results(client: AsyncClient, folder: Path) -> None:
    first = await client.submit("example", {"run.sh": b"sleep 1; echo 1 > out\n"}, user_id=1)
    script = {"run.sh": f"cp .inputs/{first.id}/out copy\n".encode()}
    second = await client.submit("example", script, user_id=1, after=first.id)
    third = await client.submit(
        "example", script, user_id=1, after=[first.id, second.id], afterany=[first.id]
    )
    waiting = await client.job(third.id)
    assert (waiting.after, waiting.afterany) == ([first.id, second.id], [first.id])
    assert (await client.wait(third.id, timeout_s=60)).status is JobStatus.COMPLETED
    await client.download(third.id, folder / "x.zip")
    assert content(folder / "x.zip", f".inputs/{second.id}/copy") == b"1\n"


async def test_array_is_awaited_listed_and_downloaded_as_a_whole(
    client: AsyncClient, folder: Path
) -> None:
    script = b'[ "$JO_ARRAY_INDEX" != 8 ] && echo "$JO_ARRAY_ID $JO_ARRAY_SIZE" > out\n'
    submitted = await client.submit("example", {"run.sh": script}, user_id=1, array="1,7-8%2")
    assert list(submitted.ids) == [submitted.id, submitted.id + 1, submitted.id + 2]
    after = await client.submit(
        "example", {"run.sh": b"ls .inputs/*\n"}, user_id=1, afterany=submitted.id
    )
    ended = await client.wait_array(submitted.id, timeout_s=60)
    assert ended.counts == {JobStatus.COMPLETED: 2, JobStatus.FAILED: 1}
    assert [job.array_index async for job in client.jobs(array=submitted.id)] == [8, 7, 1]
    await client.download_array(submitted.id, folder / "all.zip")
    assert content(folder / "all.zip", "7/out") == f"{submitted.id} 3\n".encode()
    assert content(folder / "all.zip", "MISSING.txt").startswith(b"8 (job ")
    assert await client.cancel_array(submitted.id) == await client.array(submitted.id)
    assert (await client.wait(after.id, timeout_s=60)).status is JobStatus.COMPLETED
    with pytest.raises(JobNotFound):
        await client.array(after.id)


async def test_refusal_has_the_message_of_the_server(client: AsyncClient) -> None:
    with pytest.raises(Refused, match="Invalid service"):
        await client.submit("nonsense", {"run.sh": b""}, user_id=1)


async def test_call_about_an_unknown_job_raises_job_not_found(
    client: AsyncClient, folder: Path
) -> None:
    calls = (
        client.job(77),
        client.wait(77),
        client.cancel(77),
        client.files(77),
        client.read_file(77, "x"),
        client.download_file(77, "x", folder / "x"),
        client.download(77, folder / "x"),
        anext(client.watch(77)),
        anext(client.logs(77)),
    )
    for call in calls:
        with pytest.raises(JobNotFound, match="Job 77 not found in the database"):
            await call
    assert names(folder) == []


async def test_failed_job_has_an_exit_code_and_its_output_as_partial_results(
    client: AsyncClient, tmp_path: Path
) -> None:
    job = await client.submit("example", {"run.sh": b"echo half > half.txt; exit 7\n"}, user_id=1)
    ended = await client.wait(job.id)
    assert (ended.status, ended.exit_code, ended.has_ended) == (JobStatus.FAILED, 7, True)
    assert [step.to for step in ended.history][-1] is JobStatus.FAILED
    target = tmp_path / "results.zip"
    target.write_bytes(b"older")
    with pytest.raises(NotCompleted, match="exited with code 7") as caught:
        await client.download(job.id, target, overwrite=True)
    assert caught.value.status is JobStatus.FAILED
    assert target.read_bytes() == b"older"
    await client.download(job.id, target, partial=True, overwrite=True)
    assert content(target, "half.txt") == b"half\n"
    assert [file.path for file in (await client.files(job.id)).files][:1] == ["half.txt"]


async def test_cancelled_job_is_killed_and_a_second_cancel_raises_already_ended(
    client: AsyncClient,
) -> None:
    job = await client.submit("example", {"run.sh": b"sleep 300\n"}, user_id=1)
    assert (await client.cancel(job.id)).status is JobStatus.KILLED
    with pytest.raises(AlreadyEnded) as caught:
        await client.cancel(job.id)
    assert caught.value.status is JobStatus.KILLED
    assert (await client.wait(job.id)).status is JobStatus.KILLED


async def test_submit_whose_answer_was_lost_creates_one_job(server: Service) -> None:
    async with (
        BreakingProxy(server.url, 0, 10).running() as proxy,
        AsyncClient(proxy.url) as client,
    ):
        opened = io.BytesIO(b"true\n")
        job = await client.submit("example", {"run.sh": opened}, user_id=1)
        assert proxy.connections == 3
        assert job.repeated
        assert [job.id async for job in client.jobs()] == [job.id]


async def test_cancel_whose_answer_was_lost_succeeds(server: Service) -> None:
    async with (
        BreakingProxy(server.url).running() as proxy,
        AsyncClient(proxy.url) as client,
    ):
        job = await client.submit("example", {"run.sh": b"sleep 300\n"}, user_id=1)
        await client.close()
        proxy.cuts.append(0)
        assert (await client.cancel(job.id)).status is JobStatus.KILLED


async def test_download_resumes_where_the_connection_broke(
    server: Service, client: AsyncClient, folder: Path
) -> None:
    noise = os.urandom(10 << 20)
    job = await client.submit("example", {"run.sh": b"true\n", "noise": noise}, user_id=1)
    await client.wait(job.id)
    seen: list[tuple[int, int | None]] = []
    proxy = BreakingProxy(server.url, 100, 4 << 20, 0, 5 << 20)
    async with proxy.running(), AsyncClient(proxy.url) as other:
        await other.download(
            job.id, folder / "results.zip", progress=lambda *how_far: seen.append(how_far)
        )
    assert proxy.connections == 5
    # Only data that was in buffers when a connection broke is sent again.
    assert proxy.answered_bytes < len(noise) + (4 << 20)
    assert content(folder / "results.zip", "noise") == noise
    size = (folder / "results.zip").stat().st_size
    assert seen[-1] == (size, size)
    assert seen == sorted(seen)
    assert names(folder) == ["results.zip"]


async def test_failed_download_leaves_an_existing_file_unchanged(
    server: Service, client: AsyncClient, folder: Path
) -> None:
    noise = os.urandom(4 << 20)
    job = await client.submit("example", {"run.sh": b"true\n", "noise": noise}, user_id=1)
    await client.wait(job.id)
    target = folder / "results.zip"
    target.write_bytes(b"older")
    with pytest.raises(LocalStorageFailed, match="can't be written: No such file"):
        await client.download(job.id, folder / "nowhere" / "results.zip")
    async with (
        BreakingProxy(server.url, 2 << 20).running() as proxy,
        AsyncClient(proxy.url, patience_s=0) as impatient,
    ):
        with pytest.raises(ConnectionBroken):
            await impatient.download(job.id, target, overwrite=True)
    assert names(folder) == ["results.zip"]
    assert target.read_bytes() == b"older"


async def test_wait_and_watch_survive_a_restart_of_the_server(
    client: AsyncClient, server: Service
) -> None:
    script = b"mkfifo wait; read _ < wait\n"
    job = await client.submit("example", {"run.sh": script}, user_id=1)
    waiting = asyncio.create_task(client.wait(job.id))
    watching = asyncio.create_task(_statuses(client, job.id))
    async for change in client.watch(job.id):
        if change.status is JobStatus.RUNNING:
            break
    await server.end()
    await server.start()
    assert not waiting.done()
    await client.cancel(job.id)
    assert (await waiting).status is JobStatus.KILLED
    statuses = await watching
    assert statuses[-1] is JobStatus.KILLED
    assert statuses.count(JobStatus.RUNNING) == 1


async def _statuses(client: AsyncClient, job_id: int) -> list[JobStatus]:
    return [job.status async for job in client.watch(job_id)]


async def test_followed_output_arrives_once_over_broken_connections(
    server: Service, client: AsyncClient
) -> None:
    script = b"for i in 1 2 3; do seq 2000; sleep 0.3; done\nseq 5 >&2\n"
    job = await client.submit("example", {"run.sh": script}, user_id=1)
    lines = b"".join(b"%d\n" % number for number in range(1, 2001))
    proxy = BreakingProxy(server.url, *(600 * n for n in range(1, 9)))
    async with proxy.running(), AsyncClient(proxy.url) as other:
        output = b"".join([block async for block in other.logs(job.id, follow=True)])
        assert output == 3 * lines
        part = b"".join([block async for block in other.logs(job.id, offset=len(lines))])
        assert part == 2 * lines
        errors = [block async for block in other.logs(job.id, stream="stderr")]
        assert b"".join(errors) == b"1\n2\n3\n4\n5\n"


async def test_url_of_a_client_instead_of_a_server_is_reported(start_client: StartClient) -> None:
    client = await start_client()
    async with AsyncClient(client.url, patience_s=0) as wrong:
        with pytest.raises(NotAJobServer, match="it is a jo-client, or a jo-server of an older"):
            await wrong.services()


async def test_url_without_a_server_is_distinguished_from_a_server_that_is_away(
    tmp_path: Path,
) -> None:
    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\n"
        writer.write(head + b"hi")
        writer.close()
        await writer.wait_closed()

    web_server = await asyncio.start_server(page, "127.0.0.1", 0)
    host, port = web_server.sockets[0].getsockname()
    async with web_server, AsyncClient(f"http://{host}:{port}/", patience_s=0) as client:
        with pytest.raises(NotAJobServer, match="text/html: is this the URL of a jo-server"):
            await client.services()
    async with AsyncClient(f"http://{host}:{port}", patience_s=0) as client:
        with pytest.raises(ServerUnreachable, match=f"{port} can't be reached: Connection refused"):
            await client.services()
    with pytest.raises(Refused, match="must be a URL such as http://localhost:5000"):
        AsyncClient("localhost:5000")


async def test_single_file_of_results_is_read_streamed_and_downloaded(
    server: Service, tmp_path: Path
) -> None:
    script = b"mkdir 'a b'; head -c 3000000 /dev/urandom > 'a b/c?#%25.bin'; echo '{}' > x.json\n"
    async with BreakingProxy(server.url).running() as proxy, AsyncClient(proxy.url) as client:
        job = await client.submit("example", {"run.sh": script}, user_id=1)
        await client.wait(job.id)
        results = await client.download(job.id, tmp_path / "results.zip")
        path = "a b/c?#%25.bin"
        random = content(results, path)
    proxy = BreakingProxy(server.url, 1 << 20, 1 << 20)
    async with proxy.running(), AsyncClient(proxy.url) as client:
        assert b"".join([block async for block in client.stream_file(job.id, path)]) == random
        assert proxy.connections == 3
        with pytest.raises(Refused, match="larger than 1000 bytes"):
            await client.read_file(job.id, path, max_bytes=1000)
        assert await client.read_file(job.id, "x.json") == b"{}\n"
        target = await client.download_file(job.id, "x.json", tmp_path / "x.json")
        assert target.read_bytes() == b"{}\n"
        with pytest.raises(LocalStorageFailed, match="exists already"):
            await client.download_file(job.id, path, target)
        for wrong in ("", ".", "../x.json", f"../../{job.id}/files/x.json", "a b/../x.json", "/x"):
            with pytest.raises(OutputNotFound, match="is not the path of a file"):
                await client.read_file(job.id, wrong)
        with pytest.raises(OutputNotFound, match="no file 'y'"):
            await client.download_file(job.id, "y", tmp_path / "y")
    with Client(server.url) as blocking:
        assert b"".join(blocking.stream_file(job.id, path)) == random
        assert blocking.read_file(job.id, "x.json") == b"{}\n"
        blocking.download_file(job.id, path, target, overwrite=True)
    assert target.read_bytes() == random
