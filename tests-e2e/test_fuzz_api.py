"""Fuzzing of running services with schemathesis, based on their OpenAPI documents.

``FUZZ_SECONDS`` (see ``make fuzz``) is the duration for each service.
"""

import asyncio
import os
from pathlib import Path

import aiohttp
import pytest

from harness import BIN, Portal, Service, StartClient, StartServer
from test_tokens import make_token

SECONDS = os.environ.get("FUZZ_SECONDS", "2")
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "unsupported_method",
    "allow_header_conformance",
)
ENDLESS = "/(events|logs)"
"""Streams, which stay open as long as the client reads."""

pytestmark = pytest.mark.slow

CLIENT_TOKEN = "client-token-of-a-good-length"


async def fuzz(service: Service, folder: Path, token: str) -> None:
    """Fail if ``service`` violates its OpenAPI document or logs an error."""
    await asyncio.to_thread(folder.mkdir)
    process = await asyncio.create_subprocess_exec(
        BIN / "schemathesis",
        "run",
        f"{service.url}/api-docs/openapi.json",
        "--phases=coverage,fuzzing",
        f"--max-time={SECONDS}",
        "--checks=" + ",".join(CHECKS),
        f"--exclude-path-regex={ENDLESS}",
        f"--header=Authorization: Bearer {token}",
        "--request-timeout=70",
        "--continue-on-failure",
        "--warnings=off",
        "--no-color",
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    # The responses were correct; the log must not show errors either.
    for word in ("Traceback", " ERROR ", " CRITICAL ", "Internal error"):
        assert word not in service.logged, [line for line in service.log if word in line]


async def test_server_keeps_what_its_document_says(
    start_client: StartClient, start_server: StartServer, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens.json"
    token = await asyncio.to_thread(make_token, tokens, "--admin")
    client = await start_client(CLIENT_TOKEN=CLIENT_TOKEN)
    server = await start_server(client, CLIENT_TOKEN=CLIENT_TOKEN, API_TOKENS_FILE=str(tokens))
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http:
        # A completed and a failed job exist before the fuzzing starts.
        portal = Portal(server.url, http)
        for script in ("echo x > out\n", "exit 3\n"):
            await portal.end_of(await portal.submit(script))
        await fuzz(server, tmp_path / "fuzz", token)
        # The fuzzer may have paused the service, or the user.
        for whom in ({"service": "example"}, {"user_id": 1}):
            async with http.post(f"{server.url}/resume", json=whom) as response:
                assert response.status == 200, await response.text()
        assert (await portal.end_of(await portal.submit("exit 0\n")))["status"] == "Completed"


async def test_client_keeps_what_its_document_says(
    start_client: StartClient, tmp_path: Path
) -> None:
    client = await start_client(CLIENT_TOKEN=CLIENT_TOKEN)
    await fuzz(client, tmp_path / "fuzz", CLIENT_TOKEN)
