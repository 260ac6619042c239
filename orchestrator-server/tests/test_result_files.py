"""Single files of results: their content in ranges, and headers with which they can do no harm."""

import contextlib
import gzip
from collections.abc import Mapping
from urllib.parse import quote

import pytest

from fake_client import FakeClient
from job_orchestrator.server import keys
from job_orchestrator.server.web import result_files
from running_server import Server, in_both_forms

NAMES = ("report.html", "picture.svg", "table.csv", "data.bin", "café ä;\"'.txt", "no-suffix")


async def completed(server: Server, client: FakeClient, files: Mapping[str, str]) -> int:
    """Return a job with these results."""
    job = await server.submit()
    client.complete(await client.next_payload(), **files)
    await server.ended(job)
    return job


async def get(
    server: Server, job: int, path: str, headers: Mapping[str, str] | None = None
) -> tuple[int, bytes, Mapping[str, str]]:
    """Fetch a file of the results."""
    url = f"/jobs/{job}/files/{quote(path)}"
    async with server.http.get(url, headers=headers) as response:
        return response.status, await response.read(), response.headers


@in_both_forms
async def test_file_is_served_whole_and_in_ranges(server: Server, client: FakeClient) -> None:
    text = "".join(f"{number}\n" for number in range(50_000))
    job = await completed(server, client, {"out/numbers.txt": text, "empty": ""})
    status, body, headers = await get(server, job, "out/numbers.txt")
    assert (status, body.decode()) == (200, text)
    assert headers["Content-Length"] == str(len(text))
    for wanted, part in {
        "bytes=0-0": text[:1],
        "bytes=200000-200009": text[200_000:200_010],
        "bytes=-5": text[-5:],
        f"bytes={len(text) - 1}-": text[-1:],
    }.items():
        status, body, headers = await get(server, job, "out/numbers.txt", {"Range": wanted})
        assert (status, body.decode()) == (206, part), wanted
        assert headers["Content-Range"].endswith(f"/{len(text)}")
    assert (await get(server, job, "empty"))[:2] == (200, b"")
    status, _, headers = await get(server, job, "empty", {"Range": "bytes=0-"})
    assert (status, headers["Content-Range"]) == (416, "bytes */0")


async def test_file_that_the_reader_has_is_not_sent_again(
    server: Server, client: FakeClient
) -> None:
    job = await completed(server, client, {"out": "42"})
    etag = (await get(server, job, "out"))[2]["ETag"]
    assert (await get(server, job, "out", {"If-None-Match": etag}))[:2] == (304, b"")
    assert (await get(server, job, "out", {"If-Match": '"other"'}))[0] == 412
    changed = {"Range": "bytes=1-", "If-Range": '"other"'}
    assert (await get(server, job, "out", changed))[:2] == (200, b"42")
    assert (await get(server, job, "out", {**changed, "If-Range": etag}))[:2] == (206, b"2")


@pytest.mark.parametrize("name", NAMES)
async def test_file_has_headers_that_keep_a_browser_from_running_it(
    server: Server, client: FakeClient, name: str
) -> None:
    job = await completed(server, client, {name: "<script>alert(1)</script>"})
    status, body, headers = await get(server, job, name)
    assert (status, body) == (200, b"<script>alert(1)</script>")
    assert headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
    assert headers["X-Content-Type-Options"] == "nosniff"
    shown = name.endswith((".html", ".svg", ".csv", ".txt"))
    kind = "inline" if shown else "attachment"
    assert headers["Content-Disposition"].startswith(f"{kind}; filename*=UTF-8''")
    assert (headers["Content-Type"] == "application/octet-stream") is not shown


async def test_file_that_is_not_there_is_told_with_the_way_to_the_list(
    server: Server, client: FakeClient
) -> None:
    waiting = await server.submit()
    await client.next_payload()
    status, body, _ = await get(server, waiting, "out")
    assert status == 404
    assert b"has no output to download" in body
    client.complete(1, **{"folder/out": "42"})
    await server.ended(waiting)
    for path in ("out", "folder", "folder/out/x", "FOLDER/out"):
        status, body, _ = await get(server, waiting, path)
        assert status == 404, path
        assert f"GET /jobs/{waiting}/files lists those".encode() in body
    assert (await get(server, 99, "out"))[0] == 404


async def test_compressed_file_is_sent_as_it_is(server: Server, client: FakeClient) -> None:
    content = gzip.compress(b"42").decode("latin-1")
    job = await completed(server, client, {"out.gz": content})
    _, body, headers = await get(server, job, "out.gz")
    assert body == content.encode()
    assert "Content-Encoding" not in headers


async def test_file_with_a_line_end_in_its_name_is_served(
    server: Server, client: FakeClient
) -> None:
    job = await completed(server, client, {"a\nb": "42"})
    assert (await get(server, job, "a\nb"))[:2] == (200, b"42")


async def test_range_far_inside_a_compressed_file_is_not_decompressed_in_vain(
    server: Server, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The bound is not a part of the tuning: a file beyond the real one takes seconds to make.
    monkeypatch.setattr(result_files, "MAX_SKIP_BYTES", 1000)
    job = await completed(server, client, {"out": "x" * 5000})
    assert (await get(server, job, "out", {"Range": "bytes=1000-1001"}))[:2] == (206, b"xx")
    status, body, headers = await get(server, job, "out", {"Range": "bytes=1001-1002"})
    assert (status, len(body)) == (200, 5000)
    assert "Content-Range" not in headers


async def test_number_of_readers_of_files_is_limited(server: Server, client: FakeClient) -> None:
    job = await completed(server, client, {"out": "42"})
    readers = server.app[keys.RESULTS].readers
    with contextlib.ExitStack() as taken:
        for _ in range(result_files.MAX_READERS_OF_A_USER):
            taken.enter_context(readers.slot(100, 1, AssertionError))
        status, body, headers = await get(server, job, "out")
        assert status == 503, body
        assert "Retry-After" in headers
    assert (await get(server, job, "out"))[0] == 200
