"""The root of the server, ids that can't be, and what is common to all answers."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.server.auth.token_file import create_token
from job_orchestrator.server.store.sqlite.connection import Connection
from running_server import Server, StartServer

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


async def test_browser_at_the_root_is_led_to_the_dashboard(idle_server: Server) -> None:
    async with idle_server.http.get("/", headers={"Accept": BROWSER}) as response:
        assert response.url.path == "/dashboard/"
        assert response.content_type == "text/html"
        (redirect,) = response.history
        assert redirect.headers["Vary"] == "Accept"


@pytest.mark.parametrize("headers", [{}, {"Accept": "*/*"}, {"Accept": "application/json"}])
async def test_program_at_the_root_gets_a_pong_and_where_to_go(
    idle_server: Server, headers: dict[str, str]
) -> None:
    async with idle_server.http.get("/", headers=headers) as response:
        assert await response.json() == {
            "message": "pong",
            "dashboard": "/dashboard/",
            "api": "/swagger-ui/",
        }


@pytest.mark.parametrize("number", ["9223372036854775808", "1" * 30, "0" * 30 + "9" * 20])
async def test_number_beyond_63_bits_is_an_invalid_job_id(idle_server: Server, number: str) -> None:
    async with idle_server.http.get(f"/download/{number}") as response:
        assert response.status == 400
        assert await response.json() == {
            "id": 0,
            "status": "Unknown",
            "message": f"Invalid job id {number[:40]!r}, should be a number of at most 63 bits",
        }


async def test_leading_zeros_of_a_job_id_mean_nothing(idle_server: Server) -> None:
    job = await idle_server.submit()
    async with idle_server.http.get(f"/jobs/{job:040d}") as response:
        assert (await response.json())["id"] == job
    async with idle_server.http.get(f"/jobs/{0:040d}") as response:
        assert (response.status, (await response.json())["id"]) == (404, 0)


@pytest.mark.parametrize(
    "path", ["/", "/health", "/jobs", "/download/9", "/nothing", "/api-docs/openapi.json"]
)
async def test_json_ends_with_a_newline(idle_server: Server, path: str) -> None:
    async with idle_server.http.get(path) as response:
        assert (await response.read()).endswith(b"}\n")


async def test_form_with_too_many_fields_is_413_and_too_large_files_are_400(
    start_server: StartServer,
) -> None:
    server = await start_server("http://127.0.0.1:9", MAX_UPLOAD_SIZE="10kB")
    many = aiohttp.FormData({"user_id": "1", "service": "example"}, quote_fields=False)
    for number in range(100):
        many.add_field(f"field-{number}", "x")
    many.add_field("file", b"exit 0\n", filename="run.sh")
    status, answer = await server.post(many)
    assert (status, answer["message"]) == (413, "More than 100 fields")
    status, answer = await server.upload(data=b"x" * 20_000)
    assert status == 400, "existing portals expect it"
    assert answer["message"].startswith("File too large")


async def test_foreign_and_absent_jobs_are_answered_after_the_same_statements(
    start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of a 404 must not depend on whether somebody else has the job."""
    file = tmp_path / "tokens.json"
    admin, _ = await in_thread(create_token, file, user_id=None, label="", valid_s=None)
    user, _ = await in_thread(create_token, file, user_id=7, label="", valid_s=None)
    server = await start_server("http://127.0.0.1:9", API_TOKENS_FILE=str(file))
    form = aiohttp.FormData({"user_id": "8", "service": "example"}, quote_fields=False)
    form.add_field("file", b"exit 0\n", filename="run.sh")
    status, answer = await server.post(form, Authorization=f"Bearer {admin}")
    assert status == 201
    read: list[str] = []
    rows = Connection.rows

    async def recorded(connection: Connection, statement: str, values: Any = ()) -> list[Any]:
        read.append(statement)
        return await rows(connection, statement, values)

    monkeypatch.setattr(Connection, "rows", recorded)
    statements = []
    for number in (answer["id"], answer["id"] + 1):
        read.clear()
        shown = {"Authorization": f"Bearer {user}"}
        async with server.http.get(f"/jobs/{number}", headers=shown) as response:
            assert response.status == 404
        statements.append([each for each in read if ":user_id" in each or "WHERE id = " in each])
    assert len(statements[0]) == 1
    assert statements[0] == statements[1]
