"""Route authorization: tokens, the access table, and requests whose token becomes invalid."""

import asyncio
import io
import json
import time
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from fake_client import FakeClient, StartClient, answering
from job_orchestrator.common.errors import StartupError, Unauthorized
from job_orchestrator.common.runtime.backoff import Backoff
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.server import keys
from job_orchestrator.server.auth import tokens as tokens_module
from job_orchestrator.server.auth.token_file import create_token, read_tokens, revoke_token
from job_orchestrator.server.auth.tokens import Tokens
from job_orchestrator.server.errors import ClientError
from job_orchestrator.server.jobs import submit as submission
from job_orchestrator.server.settings.server import read_settings
from job_orchestrator.server.tuning import Tuning
from job_orchestrator.server.web import access
from job_orchestrator.server.web.access import TABLE, Access, access_of, is_open
from running_server import Server, StartServer, in_folders, tuned

UNREACHABLE = "http://127.0.0.1:9"


async def token_for(file: Path, user_id: int | None, valid_s: float | None = None) -> str:
    """Create a token for a user, or for an administrator (None)."""
    return (await in_thread(create_token, file, user_id=user_id, label="", valid_s=valid_s))[0]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


@pytest.fixture
def tuning() -> Tuning:
    """Tuning with which every request checks the token file."""
    return Tuning(tokens_fresh_s=0.0)


class Portal:
    """A portal with a token."""

    def __init__(self, server: Server, token: str) -> None:
        self.http = server.http
        self.headers = {"Authorization": f"Bearer {token}"}

    async def __call__(
        self, method: str, path: str, data: Any = None
    ) -> tuple[int, dict[str, Any] | bytes]:
        async with self.http.request(
            method, path, data=data, headers=self.headers, allow_redirects=False
        ) as response:
            if response.content_type == "application/json":
                return response.status, await response.json()
            return response.status, await response.read()

    async def upload(self, **fields: str) -> tuple[int, dict[str, Any]]:
        form = aiohttp.FormData({"service": "example", **fields}, quote_fields=False)
        form.add_field("file", b"exit 0\n", filename="run.sh")
        status, answer = await self("POST", "/upload", form)
        assert isinstance(answer, dict)
        return status, answer


def routes(app: web.Application) -> Iterator[tuple[str, str]]:
    """List method and canonical path of every route."""
    for route in app.router.routes():
        assert route.resource is not None
        yield route.method, route.resource.canonical


async def test_every_route_is_classified(start_server: StartServer) -> None:
    server = await start_server(UNREACHABLE)
    paths = {path for _, path in routes(server.app)}
    for path in paths:
        in_table, is_file = path in TABLE, path.startswith(access.OPEN_BELOW)
        assert [in_table, is_file, "{id}" in path and not in_table].count(True) == 1, (
            f"{path}: say in web/access.py who may use it; until then only administrators can"
        )
    assert set(TABLE) <= paths, "no entry without a route"


async def test_trap_41_without_a_token_only_open_routes_answer(
    start_server: StartServer, file: Path
) -> None:
    await token_for(file, None)
    server = await start_server(UNREACHABLE, API_TOKENS_FILE=str(file))
    asked = [*routes(server.app), ("GET", "/no/such/route"), ("PUT", "/upload")]
    for method, path in asked:
        if method == "HEAD":
            continue
        for shown in ({}, {"Authorization": "Bearer jo_wrong"}, {"Authorization": "Basic eA=="}):
            url = path.format(id="1", name="index.html", path="run.sh")
            async with server.http.request(method, url, headers=shown) as response:
                if is_open(path):
                    assert response.status != 401, path
                    continue
                assert response.status == 401, (method, path)
                assert response.headers["WWW-Authenticate"] == "Bearer"
                assert (await response.json())["id"] == 0


async def test_trap_41_user_sees_fetches_and_ends_only_their_own_jobs(
    start_server: StartServer, file: Path
) -> None:
    await token_for(file, None)
    server = await start_server(UNREACHABLE, API_TOKENS_FILE=str(file))
    mine, other = [Portal(server, await token_for(file, user)) for user in (7, 8)]
    status, answer = await mine.upload()
    assert status == 201
    job = answer["id"]
    assert server.rows("SELECT user_id FROM jobs") == [(7,)]
    about_jobs = [
        (m, p.format(id=job, path="run.sh"))
        for m, p in routes(server.app)
        if access_of(p) is Access.ONE_JOB
    ]
    assert ("POST", f"/terminate/{job}") in about_jobs
    not_found = {
        "id": 0,
        "status": "Unknown",
        "message": f"Job {job} not found in the database",
        "code": "no-such-job",
    }
    for method, path in about_jobs:
        expected = (404, None if method == "HEAD" else not_found)
        assert await other(method, path) == expected, path
    status, body = await mine("GET", f"/download/{job}")
    assert isinstance(body, dict)
    assert status == 200
    assert body["status"] != "Killed"
    status, body = await mine("POST", f"/terminate/{job}")
    assert isinstance(body, dict)
    assert (status, body["status"]) == (200, "Killed")


async def test_trap_41_user_fetches_their_result_and_an_administrator_everybodys(
    start_server: StartServer, client: FakeClient, start_client: Any, file: Path
) -> None:
    admin = await token_for(file, None)
    server = await start_server(await start_client(client), API_TOKENS_FILE=str(file))
    mine, other = [Portal(server, await token_for(file, user)) for user in (7, -8)]
    all_of_them = Portal(server, admin)
    _, answer = await mine.upload(user_id="7")
    client.complete(await client.next_payload(), out="42")
    path = f"/download/{answer['id']}"
    await mine("GET", f"{path}?wait=30")
    for portal in (mine, all_of_them):
        status, body = await portal("GET", path)
        assert status == 200
        assert isinstance(body, bytes)
        assert zipfile.ZipFile(io.BytesIO(body)).read("out") == b"42"
    assert (await other("GET", path))[0] == 404


async def test_trap_41_user_submits_only_as_themselves(
    start_server: StartServer, file: Path
) -> None:
    admin = await token_for(file, None)
    server = await start_server(UNREACHABLE, API_TOKENS_FILE=str(file))
    mine, all_of_them = Portal(server, await token_for(file, 7)), Portal(server, admin)
    assert await mine.upload(user_id="8") == (
        403,
        {"id": 0, "status": "Unknown", "message": "This token is for user 7 only"},
    )
    assert server.rows() == []
    assert server.folders() == []
    assert (await mine.upload(user_id="7"))[0] == 201
    assert (await mine.upload())[0] == 201
    assert (await all_of_them.upload(user_id="8"))[0] == 201
    assert await all_of_them.upload() == (
        400,
        {"id": 0, "status": "Unknown", "message": "Missing user_id field"},
    )


async def test_route_that_is_not_in_the_table_is_for_administrators(
    start_server: StartServer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All routes are in the table, so the default shows only without it.
    monkeypatch.setattr(access, "TABLE", {})
    admin = await token_for(file, None)
    server = await start_server(UNREACHABLE, API_TOKENS_FILE=str(file))
    assert (await Portal(server, await token_for(file, 7))("GET", "/whoami"))[0] == 403
    assert (await Portal(server, admin)("GET", "/whoami"))[0] == 200


async def test_whoami_without_configured_tokens_returns_an_administrator(
    start_server: StartServer, file: Path
) -> None:
    server = await start_server(UNREACHABLE)
    everybody = {"user_id": None, "admin": True, "auth": False, "limits": None, "name": ""}
    assert await Portal(server, "any")("GET", "/whoami") == (200, everybody)


async def test_whoami_with_a_token_returns_its_owner(start_server: StartServer, file: Path) -> None:
    admin = await token_for(file, None)
    server = await start_server(UNREACHABLE, API_TOKENS_FILE=str(file))
    user = await token_for(file, 0)
    assert await Portal(server, admin)("GET", "/whoami") == (
        200,
        {"user_id": None, "admin": True, "auth": True, "limits": None, "name": ""},
    )
    assert await Portal(server, user)("GET", "/whoami") == (
        200,
        {
            "user_id": 0,
            "admin": False,
            "auth": True,
            "limits": {
                "active": 0,
                "max_runs": None,
                "jobs_per_hour": None,
                "jobs_left": None,
                "paused": False,
                "use": [
                    {
                        "kind": "user_and_service",
                        "name": "example",
                        "used": 0,
                        "limit": 5,
                        "reached": False,
                    }
                ],
            },
            "name": "",
        },
    )


async def test_revoked_and_new_tokens_take_effect_without_a_restart(
    start_server: StartServer, file: Path
) -> None:
    first = await token_for(file, 7)
    server = await start_server(UNREACHABLE, API_TOKENS_FILE=str(file))
    assert (await Portal(server, first)("GET", "/whoami"))[0] == 200
    second = await token_for(file, 8)
    assert (await Portal(server, second)("GET", "/whoami"))[0] == 200
    (kept,) = [token for token in await in_thread(read_tokens, file) if token.user_id == 7]
    await in_thread(revoke_token, file, kept.id)
    assert (await Portal(server, first)("GET", "/whoami"))[0] == 401
    assert (await Portal(server, second)("GET", "/whoami"))[0] == 200
    await in_thread(file.write_text, "{")
    assert (await Portal(server, second)("GET", "/whoami"))[0] == 401, (
        "an unusable file refuses all tokens"
    )
    await in_thread(file.unlink)
    assert (await Portal(server, second)("GET", "/whoami"))[0] == 401
    third = await token_for(file, None)
    assert (await Portal(server, third)("GET", "/whoami"))[0] == 200


async def test_token_is_refused_after_it_has_expired(file: Path) -> None:
    token = await token_for(file, 7, 3600)
    now = time.time()
    tokens = Tokens(file, fresh_s=0.0, now=lambda: now)
    await tokens.start()
    assert (await tokens.principal(token)).user_id == 7
    now += 3601
    with pytest.raises(Unauthorized):
        await tokens.principal(token)


async def test_file_is_read_only_when_it_has_changed(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await token_for(file, None)
    tokens = Tokens(file, fresh_s=0.0)
    await tokens.start()
    # Only the number of reads shows it: the tokens are the same.
    monkeypatch.setattr(tokens_module, "read_tokens", lambda _: pytest.fail("read again"))
    await tokens.principal(token)
    with pytest.raises(Unauthorized):
        await tokens.principal("jo_no_such_token")


@pytest.mark.parametrize("content", [None, "x", '{"tokens": [{"id": 1}]}'])
async def test_invalid_token_file_prevents_the_start(file: Path, content: str | None) -> None:
    if content is not None:
        await in_thread(file.write_text, content)
    with pytest.raises(StartupError, match="API_TOKENS_FILE"):
        await Tokens(file, fresh_s=0.0).start()


async def test_token_file_that_others_may_write_prevents_the_start(file: Path) -> None:
    await token_for(file, None)
    await in_thread(file.chmod, 0o620)
    with pytest.raises(StartupError, match="can be written by others"):
        await Tokens(file, fresh_s=0.0).start()


async def test_server_without_tokens_logs_a_warning(
    start_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    await start_server(UNREACHABLE)
    assert "API_TOKENS_FILE is not set" in caplog.text


def test_metrics_require_no_token_with_metrics_open() -> None:
    base = {f"SERVICE_A_{what}_URL": UNREACHABLE for what in ("UPLOAD", "DOWNLOAD")}
    assert read_settings({**base, "METRICS_OPEN": "yes"}, {}).metrics_open
    assert not read_settings(base, {}).metrics_open
    with pytest.raises(StartupError, match="METRICS_OPEN is 'perhaps'"):
        read_settings({**base, "METRICS_OPEN": "perhaps"}, {})
    assert is_open("/metrics", metrics_open=True)
    assert not is_open("/metrics")


async def test_trap_41_user_lists_only_their_own_jobs(
    start_server: StartServer, file: Path
) -> None:
    admin = await token_for(file, None)
    server = await start_server(UNREACHABLE, API_TOKENS_FILE=str(file))
    mine, other = [Portal(server, await token_for(file, user)) for user in (7, 8)]
    for _ in range(2):
        await mine.upload()
    await other.upload()

    async def listed(portal: Portal, path: str) -> list[int]:
        status, answer = await portal("GET", path)
        assert status == 200
        assert isinstance(answer, dict)
        return [job["user_id"] for job in answer["jobs"]]

    assert await listed(mine, "/jobs") == [7, 7]
    assert await listed(mine, "/jobs?user_id=7") == [7, 7]
    assert await listed(other, "/jobs?service=example&status=Queued,Processing") == [8]
    assert sorted(await listed(Portal(server, admin), "/jobs")) == [7, 7, 8]
    lists = [p for m, p in routes(server.app) if m == "GET" and access_of(p) is Access.OWN_JOBS]
    assert "/jobs" in lists
    for path in lists:
        assert (await mine("GET", f"{path}?user_id=8"))[0] == 403, path


async def test_trap_41_routes_about_all_users_are_for_administrators(
    start_server: StartServer, file: Path
) -> None:
    admin = await token_for(file, None)
    server = await start_server(UNREACHABLE, API_TOKENS_FILE=str(file))
    user = Portal(server, await token_for(file, 7))
    for method, path in routes(server.app):
        if access_of(path) is Access.ADMIN:
            assert (await user(method, path.format(id=1)))[0] == 403
            # Those that need a body refuse a request without one, and there is no job.
            expected = {"/pause": 400, "/resume": 400, "/jobs/{id}/explanation": 404}.get(path, 200)
            assert (await Portal(server, admin)(method, path.format(id=1)))[0] == expected


async def revoke(file: Path, user_id: int) -> None:
    (kept,) = [each for each in await in_thread(read_tokens, file) if each.user_id == user_id]
    await in_thread(revoke_token, file, kept.id)


LONG_ANSWERS = ["/events", "/jobs/1/events", "/jobs/1/logs?follow=1", "/download/1?wait=60"]


@pytest.mark.parametrize("path", LONG_ANSWERS)
async def test_long_answer_is_aborted_when_its_token_is_revoked(
    start_server: StartServer, file: Path, path: str
) -> None:
    await token_for(file, 8)
    token = await token_for(file, 7)
    server = await start_server(UNREACHABLE, API_TOKENS_FILE=str(file))
    portal, tokens = Portal(server, token), server.app[keys.AUTHENTICATION].tokens
    assert (await portal.upload())[0] == 201

    async def read() -> None:
        async with server.http.get(
            path, headers={"Authorization": f"Bearer {token}"}, timeout=aiohttp.ClientTimeout(30)
        ) as answer:
            # aiohttp repeats a request if a kept connection breaks before the answer has begun.
            answer.raise_for_status()
            await answer.read()
            pytest.fail("the answer was not aborted")

    reading = asyncio.create_task(read())
    await server.eventually(lambda: tokens.active == 1)
    await tokens.run_pass()
    assert (await portal("GET", "/whoami"))[0] == 200
    assert not reading.done(), "its token is still valid"
    await revoke(file, 7)
    with pytest.raises(aiohttp.ClientError):
        await reading
    await server.eventually(lambda: tokens.active == 0)


@in_folders
async def test_download_is_aborted_when_its_token_expires(
    start_server: StartServer, client: FakeClient, start_client: Any, file: Path
) -> None:
    await token_for(file, None)
    token = await token_for(file, 7, 3600)
    server = await start_server(await start_client(client), API_TOKENS_FILE=str(file))
    portal, tokens = Portal(server, token), server.app[keys.AUTHENTICATION].tokens
    job = (await portal.upload())[1]["id"]
    client.complete(await client.next_payload())
    await portal("GET", f"/download/{job}?wait=30")
    (results,) = (server.root / "data").glob("*/output-1.zip")
    with results.open("r+b") as kept:
        kept.truncate(1 << 30)  # more than fits into the buffers of a connection
    headers = {"Authorization": f"Bearer {token}"}
    async with server.http.get(f"/download/{job}", headers=headers) as answer:
        assert answer.content_length == 1 << 30
        await tokens.run_pass()
        assert await answer.content.readexactly(1 << 20)
        # The server creates the tokens itself, and must have started before the token expires.
        tokens._now = lambda: time.time() + 3601
        with pytest.raises(aiohttp.ClientError):
            async for _ in answer.content.iter_any():
                pass
    await server.eventually(lambda: tokens.active == 0)


async def test_user_with_the_maximum_of_concurrent_uploads_is_refused_and_others_are_not(
    start_server: StartServer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The bound is in the message of the error, and is not a part of the tuning.
    monkeypatch.setattr(submission, "MAX_UPLOADS", 2)
    admin = await token_for(file, None)
    server = await start_server(UNREACHABLE, API_TOKENS_FILE=str(file))
    mine, other = [Portal(server, await token_for(file, user)) for user in (7, 8)]
    go_on = asyncio.Event()

    async def stalled() -> AsyncIterator[bytes]:
        yield b"--x\r\n"
        await go_on.wait()

    async def send() -> int:
        form = {"Content-Type": "multipart/form-data; boundary=x", **mine.headers}
        async with server.http.post("/upload", data=stalled(), headers=form) as response:
            return response.status

    both = [asyncio.create_task(send()) for _ in range(2)]
    uploads = server.app[keys.SUBMISSION].uploads
    await server.eventually(lambda: uploads.in_use(7) == 2)
    status, answer = await mine.upload()
    assert (status, answer["message"]) == (
        503,
        "User 7 is sending 2 jobs already; try again when one has arrived",
    )
    for portal in (other, Portal(server, admin)):
        assert (await portal.upload(user_id="8"))[0] == 201
    go_on.set()
    assert await asyncio.gather(*both) == [400, 400]
    assert (await mine.upload())[0] == 201


async def test_upload_beyond_the_storage_limit_is_refused_before_its_body_is_sent(
    start_server: StartServer, file: Path
) -> None:
    token = await token_for(file, 7)
    server = await start_server(UNREACHABLE, API_TOKENS_FILE=str(file), MAX_STORED_PER_USER="20MB")
    reader, writer = await asyncio.open_connection(server.url.host, server.url.port)
    try:
        writer.write(
            f"POST /upload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\n"
            "Content-Length: 40000000\r\n\r\n".encode()
        )
        async with asyncio.timeout(60):
            head = await reader.readuntil(b"\r\n")
    finally:
        writer.close()
        await writer.wait_closed()
    assert head.startswith(b"HTTP/1.1 507 "), "nothing of the body was sent"


@tuned(client_backoff=Backoff((0.0,)))
async def test_reasons_name_clients_for_administrators_only(
    start_server: StartServer, start_client: StartClient, client: FakeClient, file: Path
) -> None:
    user_token, admin_token = await token_for(file, 7), await token_for(file, None)
    client.instead["submit"] = answering(500)
    url = await start_client(client)
    server = await start_server(url, API_TOKENS_FILE=str(file), SERVICE_EXAMPLE_MAX_ATTEMPTS="2")
    user, admin = Portal(server, user_token), Portal(server, admin_token)
    assert (await user.upload(user_id="7"))[0] == 201
    expected = "The machine it was on failed or could not be reached"

    async def reasons(asked: Portal) -> str:
        """Return all reasons that the routes about jobs and services show."""
        texts: list[str] = []

        def collect(value: Any) -> None:
            if isinstance(value, dict):
                texts.extend(str(value.get(name, "")) for name in ("message", "why", "problem"))
                texts.append(str((value.get("queue") or {}).get("reason", "")))
            for each in value.values() if isinstance(value, dict) else value:
                if isinstance(each, dict | list):
                    collect(each)

        for path in ("/jobs/1", "/jobs", "/download/1", "/services"):
            status, answer = await asked("GET", path)
            assert status == 200
            collect(answer)
        _, stream = await asked("GET", "/jobs/1/events?last_event_id=0")
        assert isinstance(stream, bytes)
        for line in stream.decode().splitlines():
            if line.startswith("data: "):
                collect(json.loads(line.removeprefix("data: ")))
        return "\n".join(texts)

    await user("GET", "/download/1?wait=30")
    for_user, for_admin = await reasons(user), await reasons(admin)
    assert f"{expected}; it is tried again" in for_user
    assert f"{expected}. It has been tried 2 times, and is not tried again" in for_user
    assert "127.0.0.1" not in for_user
    assert "answered 500" not in for_user
    assert for_admin.count(f"{url}/submit answered 500") >= 5


async def test_user_sees_no_client_and_an_administrator_sees_its_url(
    start_server: StartServer,
    client: FakeClient,
    start_client: Any,
    file: Path,
) -> None:
    url = await start_client(client)
    user, admin = await token_for(file, 7), await token_for(file, None)
    server = await start_server(url, API_TOKENS_FILE=str(file))
    job = (await Portal(server, user).upload())[1]["id"]
    await client.next_payload()
    client.instead["partial"] = answering(500)
    async with asyncio.timeout(60):
        while "Submitted" not in str(await Portal(server, admin)("GET", f"/jobs/{job}")):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    for path in ("/jobs", f"/jobs/{job}", "/services", f"/download_partial/{job}"):
        assert "127.0.0.1" not in str(await Portal(server, user)("GET", path)), path
        assert url in str(await Portal(server, admin)("GET", path)), path
    assert await Portal(server, user)("GET", f"/download_partial/{job}") == (
        502,
        {"id": job, "status": "Submitted", "message": ClientError.for_users},
    )
