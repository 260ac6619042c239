"""Tokens with real processes: access, and no token in any log."""

import asyncio
import contextlib
import subprocess
from pathlib import Path

import aiohttp
import psutil

from harness import BIN, Portal, StartClient, StartServer

CLIENT_TOKEN = "client-token-of-a-good-length"


def make_token(file: Path, *scope: str) -> str:
    """Create a token with ``jo-server token create`` and return it."""
    command = [str(BIN / "jo-server"), "--api-tokens-file", str(file), "token", "create", *scope]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


async def send_raw(url: str, text: str) -> None:
    """Send text that HTTP libraries refuse to send, and read the response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(text.encode())
    with contextlib.suppress(ConnectionError):
        await reader.read()
    writer.close()


async def test_trap_42_no_log_line_holds_a_token(
    tmp_path: Path, start_client: StartClient, start_server: StartServer
) -> None:
    file = tmp_path / "tokens.json"
    token = make_token(file, "--user", "7")
    verbose = {"LOG_LEVEL": "DEBUG", "CLIENT_TOKEN": CLIENT_TOKEN}
    client = await start_client(**verbose)
    stranger = await start_client(LOG_LEVEL="DEBUG", CLIENT_TOKEN=f"not-{CLIENT_TOKEN}")
    server = await start_server(client, stranger, API_TOKENS_FILE=str(file), **verbose)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http:
        portal = Portal(server.url, http)
        show = b"import os; print(dict(os.environ))"
        job = await portal.submit("python3 show.py\n", {"show.py": show}, user=7)
        assert (await portal.end_of(job))["status"] == "Completed"
        output = (await portal.results(job)).read(".orchestrator/stdout.txt").decode()
        assert (await portal.terminate(job))[0] == 409
    wrong = "jo_wrong_token_that_nobody_made"
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {wrong}"}) as http:
        for url in (f"{server.url}/download/{job}", f"{client.url}/load"):
            async with http.get(url, params={"token": wrong}) as response:
                assert response.status == 401
    for service, secret in ((server, token), (client, CLIENT_TOKEN)):
        for spoilt in (f"{secret}\0", f"{secret}\r\n\x01", f"{secret}{'x' * 9000}"):
            await send_raw(
                service.url, f"GET /load HTTP/1.1\r\nAuthorization: Bearer {spoilt}\r\n\r\n"
            )
        await send_raw(service.url, f"GET /{secret} HTTP/9.9\r\n\r\n")
    logs = server.logged + client.logged + stranger.logged
    assert f"{stranger.url}/submit refused the token: CLIENT_TOKEN differs" in logs
    assert "GET /load 401" in client.logged
    assert "malformed HTTP request: BadHttpMessage" in client.logged
    assert "Traceback" not in logs
    for secret in (token, CLIENT_TOKEN, wrong, "Bearer"):
        assert secret not in logs
        assert secret not in output
    assert "JO_WORKSPACE" in output


async def test_trap_70_token_of_a_file_is_used_and_is_in_no_environment(
    tmp_path: Path, start_client: StartClient, start_server: StartServer
) -> None:
    file = tmp_path / "client-token"
    file.write_text(f"{CLIENT_TOKEN}\n")
    client = await start_client(CLIENT_TOKEN_FILE=str(file))
    server = await start_server(client, CLIENT_TOKEN=CLIENT_TOKEN)
    async with aiohttp.ClientSession() as http:
        portal = Portal(server.url, http)
        assert (await portal.end_of(await portal.submit("exit 0\n")))["status"] == "Completed"
    process = psutil.Process(client.pid)
    for each in (process, *process.children(recursive=True)):
        assert CLIENT_TOKEN not in each.environ().values()


async def test_child_processes_do_not_inherit_a_token_of_the_environment(
    start_client: StartClient, start_server: StartServer
) -> None:
    client = await start_client(CLIENT_TOKEN=CLIENT_TOKEN)
    server = await start_server(client, CLIENT_TOKEN=CLIENT_TOKEN)
    async with aiohttp.ClientSession() as http:
        portal = Portal(server.url, http)
        job = await portal.submit("sleep 4713.3\n")
        await portal.until(job, "Running")
        children = psutil.Process(client.pid).children(recursive=True)
        assert children, "the fork server, and the script"
        for each in children:
            assert CLIENT_TOKEN not in each.environ().values()
        await portal.terminate(job)
