"""Start of the services: a wrong set-up is reported in one line, with exit status 2."""

import asyncio
import resource
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from harness import StartClient, StartServer, eventually

BIN = Path(sys.executable).parent
URLS = {
    "SERVICE_A_UPLOAD_URL": "http://127.0.0.1:9/submit",
    "SERVICE_A_DOWNLOAD_URL": "http://127.0.0.1:9/retrieve",
}


def start(
    command: str, folder: Path, *flags: str, **settings: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [BIN / command, *flags],
        cwd=folder,
        env={"PORT": "0", "HOST": "127.0.0.1", **settings},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def startup_error(result: "subprocess.CompletedProcess[str]") -> str:
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"PORT": "http"}, "PORT is 'http'; it must be a whole number from 0 to 65535"),
        ({"MAX_AGE": "two days"}, "MAX_AGE is 'two days'; it must be a time"),
        ({"MAX_UPLOAD_SIZE": "-1"}, "MAX_UPLOAD_SIZE is '-1'; it must be a size"),
        ({"MAX_UPLOAD_SIZE": "0"}, "MAX_UPLOAD_SIZE is '0'; it must be at least 1 B"),
        ({"LOG_FORMAT": "xml"}, "LOG_FORMAT is 'xml'; it must be one of text, json"),
        ({"SERVICE_A_RUNS_PER_USER": "0"}, "SERVICE_A_RUNS_PER_USER is '0'"),
        ({"SERVICE_A_UPLOAD_URL": "client:9000"}, "SERVICE_A_UPLOAD_URL is 'client:9000'"),
        ({"SERVICE_A_DOWNLOAD_URL": ""}, "SERVICE_A_DOWNLOAD_URL is not set"),
        ({"SERVICE_MY_TOOL_MAX_RUNS": "5"}, "SERVICE_MY_TOOL_UPLOAD_URL is not set"),
        ({"DATA_PATH": "/proc/data"}, "DATA_PATH is '/proc/data', which can't be written"),
        ({"DB_PATH": "/nowhere/db"}, "DB_PATH is '/nowhere/db', which can't be used"),
        ({"HOST": "no.such.host.invalid"}, "HOST is 'no.such.host.invalid'"),
    ],
)
def test_server_with_a_bad_setting_stops_with_one_line_that_names_it(
    tmp_path: Path, settings: dict[str, str], message: str
) -> None:
    assert message in startup_error(start("jo-server", tmp_path, **{**URLS, **settings}))


def test_server_without_services_says_so(tmp_path: Path) -> None:
    assert "No services configured" in startup_error(start("jo-server", tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"SLOTS": "many"}, "SLOTS is 'many'; it must be a whole number from 1"),
        ({"KILL_GRACE": "soon"}, "KILL_GRACE is 'soon'; it must be a time"),
        ({"DATA_PATH": "/proc/data"}, "DATA_PATH is '/proc/data', which can't be written"),
    ],
)
def test_client_with_a_bad_setting_stops_with_one_line_that_names_it(
    tmp_path: Path, settings: dict[str, str], message: str
) -> None:
    assert message in startup_error(start("jo-client", tmp_path, **settings))


def test_flag_wins_over_the_environment_and_is_named(tmp_path: Path) -> None:
    message = startup_error(start("jo-client", tmp_path, "--slots", "x", SLOTS="2"))
    assert "--slots is 'x'" in message


@pytest.mark.parametrize("command", ["jo-server", "jo-client"])
def test_port_in_use_is_reported(tmp_path: Path, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        message = startup_error(start(command, tmp_path, **{**URLS, "PORT": port}))
    assert f"Can't listen on 127.0.0.1 port {port}: Address already in use" in message


def test_database_of_a_later_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "db.sqlite") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    message = startup_error(start("jo-server", tmp_path, **URLS))
    assert "schema version 99; this jo-server knows" in message
    with sqlite3.connect(tmp_path / "db.sqlite") as database:
        assert database.execute("PRAGMA user_version").fetchone() == (99,)
    database.close()


@pytest.mark.parametrize("command", ["jo-server", "jo-client"])
def test_version_and_help_are_shown(tmp_path: Path, command: str) -> None:
    assert "0.1.0" in start(command, tmp_path, "--version").stdout
    assert "MAX_AGE" in start(command, tmp_path, "--help").stdout


async def test_start_logs_limits_features_and_addresses(
    start_client: StartClient, start_server: StartServer
) -> None:
    client = await start_client(CLIENT_TOKEN="hush-hush-hush-hush-hush-hush-hush")
    server = await start_server(client, CORS_ORIGINS="*", SERVICE_EXAMPLE_TIME_LIMIT="5m")

    async def both_listen() -> bool:
        return "Metrics: " in server.logged and "Metrics: " in client.logged

    await eventually(both_listen)
    assert "results are kept for 2 days, uploads are limited to 400 MB" in server.logged
    assert "are kept for 2 days, uploads are limited to 400 MB" in client.logged
    assert "Service example: 5 per user, 10 in all, 3 attempts, 300 s each, at " in server.logged
    assert "On: CORS" in server.logged
    assert "Off: API tokens, tokens of issuers, client token, callbacks, " in server.logged
    assert f"Dashboard: {server.url}/dashboard/" in server.logged
    assert f"API (Swagger UI): {client.url}/swagger-ui/" in client.logged
    assert "On: client token" in client.logged
    assert "Off: sandbox, " in client.logged
    assert "hush" not in client.logged


async def test_server_may_open_as_many_files_as_the_system_allows(
    start_server: StartServer,
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        server = await start_server("http://127.0.0.1:9")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert resource.prlimit(server.pid, resource.RLIMIT_NOFILE) == (hard, hard)


async def test_responses_name_the_service_without_versions(
    start_client: StartClient, start_server: StartServer
) -> None:
    client = await start_client()
    for service in (client, await start_server(client)):
        host, port = service.url.removeprefix("http://").split(":")
        for head in (b"GET /health HTTP/1.1\r\nHost: x\r\n", b"nonsense\r\n"):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(head + b"Connection: close\r\n\r\n")
            answer = await reader.read()
            writer.close()
            assert b"\r\nServer: %b\r\n" % service.name.encode() in answer
            assert b"aiohttp" not in answer
