"""Command doctor with healthy and broken set-ups."""

import asyncio
from pathlib import Path

from harness import StartClient, StartServer
from jo_command import Jo, Run
from test_tokens import make_token


async def test_doctor_accepts_a_healthy_setup_and_names_the_problems_of_others(
    jo: Jo, start_server: StartServer
) -> None:
    healthy = await jo("doctor", "--json")
    assert {finding["verdict"] for finding in healthy.json} <= {"ok", "warning"}, healthy.out
    assert healthy.code == 0
    about = {finding["about"].split()[0] for finding in healthy.json}
    assert about == {"server", "clocks", "access", "service", "client", "disk", "settings"}
    _check_remedies(healthy)
    without_client = await start_server("http://127.0.0.1:9")
    broken = await jo("doctor", "--url", without_client.url)
    assert broken.code == 1
    assert "✗" in broken.out
    assert "client http://127.0.0.1:9/submit" in broken.out
    _check_remedies(await jo("doctor", "--url", without_client.url, "--json"))
    _check_remedies(await jo("doctor", "--url", "http://127.0.0.1:9", "--json"))
    gone = await jo("doctor", "--url", "http://127.0.0.1:9")
    assert gone.code == 1
    assert "can't be reached" in gone.out


def _check_remedies(run: Run) -> None:
    assert [each for each in run.json if each["verdict"] != "ok" and not each["advice"]] == []


async def test_settings_that_contradict_those_of_the_server_are_warned_of(
    jo: Jo, start_client: StartClient, start_server: StartServer
) -> None:
    client = await start_client(MAX_UPLOAD_SIZE="1MB")
    server = await start_server(client)
    run = await jo("doctor", "--url", server.url)
    assert f"! settings of {client.url}/submit: its MAX_UPLOAD_SIZE is 1 MB" in run.out
    assert run.code == 0, run.out
    _check_remedies(await jo("doctor", "--url", server.url, "--json"))


async def test_doctor_accepts_the_token_of_a_user(
    jo: Jo, tmp_path: Path, start_client: StartClient, start_server: StartServer
) -> None:
    file = tmp_path / "tokens.json"
    token = await asyncio.to_thread(make_token, file, "--user", "7")
    server = await start_server(await start_client(), API_TOKENS_FILE=str(file))
    jo.env |= {"JO_URL": server.url, "JO_TOKEN": token}
    run = await jo("doctor")
    assert "the token is that of user 7" in run.out
    assert "service example: 0 of 10 running" in run.out
    assert run.code == 0, run.out


async def test_doctor_does_not_retry_a_url_without_a_server(jo: Jo) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        run = await jo("doctor", "--url", f"http://127.0.0.1:{port}")
    assert run.code == 1
    assert run.out.startswith("✗ server: ")
    assert run.err == ""
