"""Submission of jobs: the answers of the contract, and no trace of a refused upload."""

import asyncio
import io
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.storage.form_writer import FormLimits
from job_orchestrator.server.errors import JobNotFound
from job_orchestrator.server.files.folder import FolderFiles
from job_orchestrator.server.jobs.submission.submit import JobSubmission
from job_orchestrator.server.model import EVERYBODY, CallbackRules, Job, Service
from job_orchestrator.server.scheduling.rules import Rules
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.store.limits import UserLimits
from running_server import Server, StartServer, in_folders


async def test_upload_accepted_answer_is_as_documented(idle_server: Server) -> None:
    form = aiohttp.FormData({"user_id": "-7", "service": "EXAMPLE"})
    form.add_field("file", b"exit 0", filename="run.sh")
    async with idle_server.http.post("/upload", data=form) as response:
        assert response.status == 201
        assert response.headers["Location"] == "/jobs/1"
        assert await response.json() == {
            "id": 1,
            "status": "Queued",
            "message": "Job successfully uploaded",
        }
    assert idle_server.rows("SELECT user_id, service FROM jobs") == [(-7, "example")]


def _form(fields: dict[str, str], *names: str) -> aiohttp.FormData:
    form = aiohttp.FormData(fields, quote_fields=False)
    for name in names:
        form.add_field("file", b"content", filename=name)
    return form


PART = b"Content-Disposition: form-data"
OWNER = {"user_id": "1", "service": "example"}
INVALID_USER = "Invalid user_id, should be a number"
BAD_NAMES = [
    "../x",
    "/home/ada/..",
    "a//b",
    "./x",
    "a/../b",
    ".",
    "..",
    ".orchestrator/x",
    "x" * 256,
]


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (_form({"service": "example"}, "run.sh"), "Missing user_id field"),
        (_form({**OWNER, "user_id": "me"}, "run.sh"), INVALID_USER),
        (
            _form({**OWNER, "user_id": "2147483648"}, "run.sh"),
            INVALID_USER,
        ),
        (_form({"user_id": "1"}, "run.sh"), "Missing service field"),
        (_form({**OWNER, "service": "none"}, "run.sh"), "Invalid service"),
        (_form(OWNER, "input.txt"), "Missing run.sh"),
        (_form(OWNER, "sub/run.sh"), "Missing run.sh"),
        (_form(OWNER, "run.sh", "run.sh"), "Two files have the name 'run.sh'"),
        (_form(OWNER, "run.sh", "a", "a/b"), "'a' is a file and a folder at once"),
        *[
            (_form(OWNER, "run.sh", name), "Invalid file name")
            for name in BAD_NAMES
            if "\x00" not in name
        ],
    ],
)
async def test_upload_invalid_form_is_a_400_with_the_reason_and_leaves_nothing(
    idle_server: Server, form: aiohttp.FormData, message: str
) -> None:
    status, answer = await idle_server.post(form)
    assert status == 400
    assert set(answer) == {"id", "status", "message"}
    assert (answer["id"], answer["status"]) == (0, "Unknown")
    assert answer["message"].startswith(message)
    assert idle_server.rows() == []
    assert idle_server.folders() == []


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/plain", b"hello"),
        ("multipart/form-data", b"hello"),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b"--y\r\n"),
        (
            "multipart/form-data; boundary=x",
            b"--x\r\nContent-Disposition: form-data\r\n\r\n\r\n--x--",
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1',
        ),
    ],
)
async def test_upload_malformed_body_is_a_multipart_error(
    idle_server: Server, content_type: str, body: bytes
) -> None:
    status, answer = await idle_server.post(body, **{"Content-Type": content_type})
    assert status == 400
    assert answer["message"].startswith("Multipart error: ")
    assert idle_server.folders() == []


@pytest.mark.parametrize("declared", [True, False])
async def test_upload_over_the_limit_is_a_400_and_leaves_nothing(
    start_server: StartServer, declared: bool
) -> None:
    server = await start_server("http://127.0.0.1:9", MAX_UPLOAD_SIZE="10kB")
    form = _form(OWNER, "run.sh")
    form.add_field("file", io.BytesIO(b"x" * (20 << 20 if declared else 11_000)), filename="big")
    status, answer = await server.post(form)
    assert status == 400
    assert answer["message"] == "File too large: at most 10000 bytes in all"
    assert server.rows() == []
    assert server.folders() == []


async def test_trap_36_broken_off_upload_leaves_no_folder_and_no_row(idle_server: Server) -> None:
    _, writer = await _connect(idle_server)
    writer.write(
        b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
        b'Content-Disposition: form-data; name="f"; filename="run.sh"\r\n\r\nexit' + bytes(2 << 20)
    )
    await writer.drain()
    await idle_server.eventually(lambda: bool(idle_server.folders()))
    writer.transport.abort()
    await idle_server.eventually(lambda: not idle_server.folders())
    assert idle_server.rows() == []


@in_folders
async def test_trap_35_files_of_one_name_in_two_folders_are_both_kept(idle_server: Server) -> None:
    status, _ = await idle_server.post(_form(OWNER, "run.sh", "a/x", "b/x", "ä/ö 'q'.txt"))
    assert status == 201
    ((uuid,),) = idle_server.rows("SELECT uuid FROM jobs")
    kept = {name for name in idle_server.folders() if "." in name or name.endswith("x")}
    assert kept == {f"{uuid}/input/{n}" for n in ("run.sh", "a/x", "b/x", "ä/ö 'q'.txt")}


@in_folders
async def test_upload_folder_in_the_part_name_is_kept(
    idle_server: Server,
) -> None:
    form = _form(OWNER, "run.sh")
    form.add_field("data/in.pdb", b"x", filename="in.pdb")
    assert (await idle_server.post(form))[0] == 201
    ((uuid,),) = idle_server.rows("SELECT uuid FROM jobs")
    assert f"{uuid}/input/data/in.pdb" in idle_server.folders()


class SlowStore:
    """A store whose ``create`` takes until ``go_on`` is set."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self.creating = asyncio.Event()
        self.go_on = asyncio.Event()

    async def create(self, *args: Any, **kwargs: Any) -> Job:
        self.creating.set()
        await self.go_on.wait()
        return await self._store.create(*args, **kwargs)


class Body:
    """A multipart body with boundary ``b`` that has been received completely."""

    def __init__(self, *parts: tuple[str, str]) -> None:
        self._blocks = [
            f"--b\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{content}\r\n".encode()
            for disposition, content in parts
        ]
        self._blocks.append(b"--b--\r\n")

    async def readany(self) -> bytes:
        return self._blocks.pop(0) if self._blocks else b""

    def is_eof(self) -> bool:
        return False

    def at_eof(self) -> bool:
        return False


@pytest.mark.parametrize("cancellations", [1, 2])
async def test_submit_cancelled_while_the_row_is_written_keeps_the_files(
    store: JobStore, tmp_path: Path, cancellations: int
) -> None:
    files = FolderFiles(tmp_path / "data")
    await in_thread(files.prepare)
    slow_store: Any = SlowStore(store)
    submission = JobSubmission(
        store=slow_store,
        files=files,
        services={"example": Service("example", (), 5, 10, 3, None)},
        form_limits=FormLimits(1 << 20),
        inline_bytes=0,
        user_limits=UserLimits(),
        rules=Rules({}, lambda _: None),
        callback_rules=CallbackRules(),
        before_creation=lambda *_, **__: None,
        max_array_tasks=0,
    )
    body = Body(
        ('name="user_id"', "1"),
        ('name="service"', "example"),
        ('name="file"; filename="run.sh"', "exit 0"),
    )
    task = asyncio.create_task(
        submission.submit(body, "multipart/form-data; boundary=b", EVERYBODY)
    )
    await slow_store.creating.wait()
    for _ in range(cancellations):
        task.cancel()
        await asyncio.sleep(0.05)
    slow_store.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(60):
        while (job := await _found(store)) is None:  # noqa: ASYNC110 (there is no event)
            await asyncio.sleep(0.01)
    assert (await in_thread(files.inputs, job.uuid, job.fields())).content is not None


async def _found(store: JobStore) -> Job | None:
    try:
        return await store.get(1)
    except JobNotFound:
        return None


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/upload", 405),
        ("POST", "/", 405),
        ("GET", "/nothing", 404),
        ("HEAD", "/nothing", 404),
    ],
)
async def test_request_unknown_route_is_answered_in_json(
    idle_server: Server, method: str, path: str, status: int
) -> None:
    async with idle_server.http.request(method, path) as response:
        assert response.status == status
        assert response.content_type == "application/json"
        if method != "HEAD":
            answer: dict[str, Any] = await response.json()
            assert (answer["id"], answer["status"]) == (0, "Unknown")


@pytest.mark.parametrize(
    "head", [b"G@T / HTTP/1.1\r\nHost: x", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 9000]
)
async def test_request_malformed_http_is_answered_in_plain_text(
    idle_server: Server, head: bytes
) -> None:
    reader, writer = await _connect(idle_server)
    writer.write(head + b"\r\n\r\n")
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain")
    assert b"X-Request-Id" not in answer


async def _connect(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    # aiohttp offers no public access to the address of a session.
    return await asyncio.open_connection(server.url.host, server.url.port)
