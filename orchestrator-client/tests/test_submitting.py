"""Submission of payloads: accepted and refused requests; a refusal leaves nothing behind."""

import asyncio
import errno
import io
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from job_orchestrator.client import keys
from job_orchestrator.client.model import PayloadRow
from job_orchestrator.client.payloads import run as run_module
from job_orchestrator.client.payloads.store import PayloadStore, StoreError
from running_client import Client, StartClient

BOUNDARY = "b0undary"


def body(*files: tuple[str, str], end: str = f"--{BOUNDARY}--\r\n") -> bytes:
    """Build a multipart body of files from part names and file names."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"'
        f"\r\n\r\n{filename}\r\n"
        for name, filename in files
    ]
    return ("".join(parts) + end).encode()


async def post(client: Client, content: bytes) -> tuple[int, dict[str, Any]]:
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    data = io.BytesIO(content)
    async with client.http.post("/submit", data=data, headers=headers) as response:
        return response.status, await response.json()


def left(client: Client) -> list[str]:
    # os.walk ignores a folder that was removed after it was listed.
    found = os.walk(client.data)
    return [name for _, folders, files in found for name in (*folders, *files)]


async def test_trap_35_files_keep_their_paths(client: Client) -> None:
    script = "cat a/x b/x c/d/y z .orchestrator.exit output.zip > all\n"
    payload = await client.run(
        script,
        **{"a/x": b"1", "b/x": b"2", "c/d/y": b"3", "z": b"4"},
        **{".orchestrator.exit": b"5", "output.zip": b"6"},
    )
    assert payload["status"] == "Completed"
    assert (await client.archive(payload["id"], "retrieve")).read("all") == b"123456"


async def test_file_name_is_the_path_when_the_part_has_another_name(client: Client) -> None:
    status, payload = await post(client, body(("file", "run.sh"), ("file", "in/data.txt")))
    assert status == 200
    assert payload["status"] == "Prepared"
    assert (Path(payload["loc"]) / "work" / "in" / "data.txt").read_text() == "in/data.txt"


async def test_absolute_file_names_are_cut_to_their_last_component(client: Client) -> None:
    content = body(("f[]", "/home/ada/run.sh"), ("f[]", "C:\\data\\in.pdb"), ("f[]", "a/b.txt"))
    status, payload = await post(client, content)
    assert status == 200
    work = Path(payload["loc"]) / "work"
    assert {str(path.relative_to(work)) for path in work.rglob("*") if path.is_file()} == {
        "run.sh",
        "in.pdb",
        "a/b.txt",
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (body(("f", "run.sh"), ("f", "../x")), "'.' or '..' component"),
        (body(("f", "run.sh"), ("f", "/home/ada/../..")), "'.' or '..' component"),
        (body(("f", "run.sh"), ("f", "a/../x")), "'.' or '..' component"),
        (body(("f", "run.sh"), ("a/./x", "x")), "'.' or '..' component"),
        (body(("f", "run.sh"), ("f", "a//x")), "component"),
        (body(("f", "run.sh"), ("f", "a\0x")), "control character"),
        (body(("f", "run.sh"), ("f", ".orchestrator/result.json")), "reserved"),
        (body(("f", "run.sh"), ("f", "run.sh")), "Two files have the name 'run.sh'"),
        (body(("f", "run.sh"), ("f", "a"), ("f", "a/b")), "is a file and a folder at once"),
        (body(("f", "run.sh/x")), "Missing run.sh"),
        (body(("f", "x")), "Missing run.sh"),
        (body(("f", "run.sh"), end=""), "the body ends before its closing boundary"),
        (b"nonsense", "Multipart error"),
        (b"", "the body ends before its closing boundary"),
    ],
)
async def test_traps_35_and_36_refused_payload_is_400_and_leaves_nothing(
    client: Client, content: bytes, message: str
) -> None:
    status, answer = await post(client, content)
    assert status == 400
    assert message in answer["message"]
    assert (answer["id"], answer["input"], answer["status"]) == (0, {}, "Unknown")
    assert await asyncio.to_thread(left, client) == []


async def test_too_large_payload_is_refused_and_leaves_nothing(start_client: StartClient) -> None:
    client = await start_client(MAX_UPLOAD_SIZE="1kB")
    status, answer = await client.post("exit 0\n", big=bytes(1000))
    assert status == 400
    assert answer["message"].startswith("File too large")
    assert await asyncio.to_thread(left, client) == []


async def test_trap_36_upload_that_breaks_off_leaves_nothing(client: Client) -> None:
    reader, writer = await asyncio.open_connection(client.url.host, client.url.port)
    content = body(("f", "run.sh"), ("f", "x" * 100), end="")
    writer.write(
        b"POST /submit HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n"
        b"Content-Type: multipart/form-data; boundary="
        + BOUNDARY.encode()
        + b"\r\n\r\n"
        + content
        + bytes(2 << 20)
    )
    await writer.drain()
    await client.eventually(lambda: left(client) != [])
    writer.close()
    await writer.wait_closed()
    assert await reader.read() == b""
    await client.eventually(lambda: left(client) == [])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("file systems can't be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


async def test_trap_37_full_disk_is_507_and_the_client_recovers(
    start_client: StartClient, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The client runs as a whole here, and the time is not one of its settings.
    monkeypatch.setattr(run_module, "PACKING_RETRIES_S", 0.0)
    client = await start_client(DATA_PATH=str(small_disk))
    folder = small_disk / "payloads"
    big = body(("f", "run.sh"), ("f", "big"), end="x" * 4_000_000)
    status, answer = await post(client, big)
    assert status == 507
    assert answer["message"].startswith("The disk is full")
    assert await asyncio.to_thread(lambda: list(folder.iterdir())) == []
    # The script succeeds, but there is no space for its results, so the payload has failed.
    payload = await client.run("head -c 1500000 /dev/urandom > out; exit 0\n")
    assert payload["status"] == "Failed"
    assert payload["message"].startswith("The disk is full")
    async with client.http.get(f"/retrieve_partial/{payload['id']}") as response:
        assert response.status == 507
    async with client.http.delete(f"/retrieve/{payload['id']}") as response:
        assert response.status == 200
    assert (await client.run("exit 0\n"))["status"] == "Completed"


async def test_trap_17_repeat_of_a_submit_is_answered_also_when_the_disk_is_full(
    start_client: StartClient, small_disk: Path
) -> None:
    client = await start_client(DATA_PATH=str(small_disk))
    script = "while :; do sleep 0.1; done\n"
    payload = await client.submit(script, key="job.1", a=b"x" * 600_000, b=b"x" * 600_000)
    status, repeated = await client.post(script, key="job.1", a=b"x" * 600_000, b=b"x" * 600_000)
    assert (status, repeated["id"]) == (200, payload)
    status, _ = await client.post(script, key="job.2", a=b"x" * 600_000, b=b"x" * 600_000)
    assert status == 507


async def test_trap_17_concurrent_submits_with_one_key_give_one_payload_that_runs_once(
    client: Client, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    answers = await asyncio.gather(
        *(client.post(f"echo run >> {log}\n", key="job.1") for _ in range(6))
    )
    assert {status for status, _ in answers} == {200}
    (payload,) = {answer["id"] for _, answer in answers}
    await client.eventually(log.exists)
    assert (await client.run("exit 0\n", key="job.2"))["id"] != payload
    assert log.read_text() == "run\n"
    assert len(list(client.data.glob("*/work"))) == 2


async def test_submit_whose_row_can_not_be_written_is_500_and_leaves_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = PayloadStore.add

    async def fails(self: PayloadStore, *args: Any) -> PayloadRow | None:
        await add(self, *args)
        raise StoreError("disk I/O error")

    monkeypatch.setattr(PayloadStore, "add", fails)
    status, answer = await client.post("touch /nowhere/ran\n", key="job.1")
    assert status == 500
    assert (answer["id"], answer["message"]) == (0, "Internal error; the log has the details")
    assert await asyncio.to_thread(left, client) == []
    assert await client.app[keys.STORE].by_key("job.1") is None


async def test_script_that_is_not_utf_8_runs(client: Client) -> None:
    payload = await client.run(b"# caf\xe9\nprintf '\xff\xfe' > out; exit 0\n")
    assert payload["status"] == "Completed"
    assert (await client.archive(payload["id"], "retrieve")).read("out") == b"\xff\xfe"


async def test_script_of_windows_or_without_shebang_runs_with_bash(client: Client) -> None:
    payload = await client.run("[[ -n $BASH_VERSION ]] && echo yes > out\n")
    assert (await client.archive(payload["id"], "retrieve")).read("out") == b"yes\n"


async def test_payload_json_has_all_fields_that_servers_ask_for(client: Client) -> None:
    status, payload = await client.post("sleep 4712.1\n")
    assert status == 200
    assert payload == {
        "id": payload["id"],
        "input": {},
        "status": "Prepared",
        "loc": payload["loc"],
        "pid": 0,
        "killed": False,
        "exit_code": None,
        "message": "",
    }
    async with asyncio.timeout(60):
        while not (running := await client.get(payload["id"]))["pid"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    script = psutil.Process(running["pid"])
    assert await asyncio.to_thread(script.cwd) == f"{payload['loc']}/work"
    await client.kill(payload["id"])


async def test_payload_waits_while_the_machine_can_start_no_process(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    popen = subprocess.Popen
    refusals = iter([BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")] * 2)

    def start(*args: Any, **kwargs: Any) -> object:
        for refusal in refusals:
            raise refusal
        return popen(*args, **kwargs)

    monkeypatch.setattr(subprocess, "Popen", start)
    assert (await client.run("exit 0\n"))["status"] == "Completed"


async def test_openapi_document_names_every_route(client: Client) -> None:
    async with client.http.get("/api-docs/openapi.json") as response:
        document = json.loads(await response.read())
    described = {
        (method.upper(), path) for path, item in document["paths"].items() for method in item
    }
    served = {
        (route.method, route.resource.canonical)
        for route in client.app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    own = {route for route in served if not route[1].startswith(("/swagger", "/api-docs"))}
    assert described == own
    async with client.http.get("/swagger-ui/", allow_redirects=True) as response:
        assert response.status == 200
        assert "http://" not in await response.text()


async def test_form_without_files_is_refused(client: Client) -> None:
    field = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="run.sh"\r\n\r\nx\r\n'
    status, answer = await post(client, f"{field}--{BOUNDARY}--\r\n".encode())
    assert (status, answer["message"]) == (400, "Missing run.sh")


async def test_trap_11_payload_that_is_killed_by_its_key_before_it_arrives_never_runs(
    client: Client,
) -> None:
    async with client.http.post("/kill", headers={"Idempotency-Key": "late.1"}) as response:
        killed = await response.json()
        assert (response.status, killed["status"]) == (200, "Killed")
    status, late = await client.post("echo ran > out\n", key="late.1")
    assert (status, late["id"], late["status"]) == (200, killed["id"], "Killed")
    assert left(client) == []


async def test_payload_is_killed_by_its_key(client: Client) -> None:
    payload = await client.submit("while :; do sleep 0.1; done\n", key="mine.1")
    await client.until(payload, "Running")
    async with client.http.post("/kill", headers={"Idempotency-Key": "mine.1"}) as response:
        assert (await response.json())["id"] == payload
    assert (await client.get(payload))["status"] == "Killed"
    assert client.processes() == []
    async with client.http.post("/kill") as response:
        assert response.status == 400


@pytest.mark.parametrize("path", ["submit", "kill"])
@pytest.mark.parametrize("key", ["", "k" * 201, "k\tk", "schl\u00fcssel"])
async def test_key_that_is_no_short_text_of_printable_ascii_is_refused(
    client: Client, path: str, key: str
) -> None:
    form = aiohttp.FormData()
    form.add_field("file", b"exit 0\n", filename="run.sh")
    headers = {"Idempotency-Key": key}
    async with client.http.post(f"/{path}", data=form, headers=headers) as response:
        assert response.status == 400
        assert "Idempotency-Key" in (await response.json())["message"]
    async with client.http.get("/payloads") as response:
        assert await response.json() == []
