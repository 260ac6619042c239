"""Clients that register themselves, with real processes."""

import asyncio
import contextlib
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from breaking_proxy import BreakingProxy
from harness import BIN, Portal, Service, StartClient, StartServer, eventually

REGISTERED = {"SERVICE_EXAMPLE_CLIENTS": "registered"}


async def clients_of(server: Service, session: aiohttp.ClientSession) -> dict[str, dict[str, Any]]:
    async with session.get(f"{server.url}/clients") as response:
        return {client["url"]: client for client in (await response.json())["clients"]}


async def until_client_is(
    server: Service, session: aiohttp.ClientSession, name: str, state: str | None
) -> None:
    async def has_state() -> bool:
        found = (await clients_of(server, session)).get(name)
        return (found and found["state"]) == state

    await eventually(has_state)


async def failed_start(folder: Path, *arguments: str, **settings: str) -> str:
    """Start a jo-client that ends by itself with status 2; return what it has printed."""
    process = await asyncio.create_subprocess_exec(
        BIN / "jo-client",
        *arguments,
        env={"PATH": f"{BIN}:/usr/bin:/bin", "DATA_PATH": str(folder / "refused"), **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 2, output.decode()
    return output.decode()


async def test_client_without_a_port_registers_runs_a_job_and_leaves(
    start_server: StartServer, start_client: StartClient, session: aiohttp.ClientSession
) -> None:
    server = await start_server(**REGISTERED)
    client = await start_client(SERVER_URL=server.url, CLIENT_NAME="laptop")
    portal = Portal(server.url, session)

    job = await portal.submit("cat in.txt > out.txt", {"in.txt": b"x" * 900_000})

    assert (await portal.end_of(job))["status"] == "Completed"
    assert len((await portal.results(job)).read("out.txt")) == 900_000
    assert "listening" not in client.logged
    assert await client.end() == 0
    assert await clients_of(server, session) == {}


async def test_job_without_a_client_waits_and_says_why(
    start_server: StartServer, start_client: StartClient, session: aiohttp.ClientSession
) -> None:
    server = await start_server(**REGISTERED)
    portal = Portal(server.url, session)
    job = await portal.submit("true")
    assert "no client is registered for example" in (await portal.state(job))["message"]

    await start_client(SERVER_URL=server.url)

    assert (await portal.end_of(job))["status"] == "Completed"


async def test_job_goes_on_when_the_server_is_killed(
    start_server: StartServer,
    start_client: StartClient,
    session: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    counted, go = tmp_path / "counted", tmp_path / "go"
    server = await start_server(**REGISTERED)
    await start_client(SERVER_URL=server.url, CLIENT_NAME="laptop")
    portal = Portal(server.url, session)
    job = await portal.submit(f"echo x >> {counted}; until [ -e {go} ]; do sleep 0.1; done")
    await portal.until(job, "Running")

    await server.end(signal.SIGKILL)
    await server.start()
    go.touch()

    assert (await portal.end_of(job))["status"] == "Completed"
    assert counted.read_text() == "x\n"


async def test_job_of_a_killed_client_runs_on_another_after_lost_after(
    start_server: StartServer,
    start_client: StartClient,
    session: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    ran = tmp_path / "ran"
    server = await start_server(**REGISTERED, LOST_AFTER="1s")
    first = await start_client(SERVER_URL=server.url, CLIENT_NAME="first")
    portal = Portal(server.url, session)
    job = await portal.submit(f"[ -e {ran} ] || {{ touch {ran}; sleep 600; }}")
    await portal.until(job, "Running")
    await first.end(signal.SIGKILL)
    await portal.until(job, "Unknown")

    await start_client(SERVER_URL=server.url, CLIENT_NAME="second")

    assert (await portal.end_of(job))["status"] == "Completed"
    async with session.get(f"{server.url}/jobs/{job}") as response:
        assert (await response.json())["client"] == "second"
    # It ends the script that its previous process has left.
    await first.start()


async def test_killed_client_takes_its_name_again_and_another_one_does_not(
    start_server: StartServer,
    start_client: StartClient,
    session: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    server = await start_server(**REGISTERED)
    client = await start_client(SERVER_URL=server.url, CLIENT_NAME="laptop")

    refused = await failed_start(tmp_path, "--server", server.url, CLIENT_NAME="laptop")
    await client.end(signal.SIGKILL)
    await client.start()

    assert "another client named laptop is connected" in refused
    await until_client_is(server, session, "laptop", "connected")


async def test_stopped_client_loses_its_job_and_does_not_finish_it_twice(
    start_server: StartServer, start_client: StartClient, session: aiohttp.ClientSession
) -> None:
    server = await start_server(**REGISTERED, LOST_AFTER="1s")
    client = await start_client(SERVER_URL=server.url, CLIENT_NAME="laptop")
    portal = Portal(server.url, session)
    job = await portal.submit("sleep 2; echo $RANDOM$RANDOM > out.txt")
    await portal.until(job, "Running")

    client.send_signal(signal.SIGSTOP)
    try:
        await portal.until(job, "Unknown")
        await portal.until(job, "Queued")
    finally:
        client.send_signal(signal.SIGCONT)

    assert (await portal.end_of(job))["status"] == "Completed"
    async with session.get(f"{server.url}/jobs/{job}") as response:
        history = [step["to"] for step in (await response.json())["history"]]
    assert history.count("Completed") == 1
    assert history.count("Running") == 2


@pytest.mark.parametrize("cut", [0, 100, 400, 1000, 30_000, 300_000])
async def test_nothing_runs_twice_when_the_tunnel_is_cut(
    start_server: StartServer,
    start_client: StartClient,
    session: aiohttp.ClientSession,
    tmp_path: Path,
    cut: int,
) -> None:
    counted = tmp_path / "counted"
    server = await start_server(**REGISTERED)
    async with BreakingProxy(server.url, cut, cut).running() as proxy:
        await start_client(SERVER_URL=proxy.url, CLIENT_NAME="laptop")
        portal = Portal(server.url, session)
        job = await portal.submit(
            f"echo x >> {counted}; head -c 900000 /dev/urandom > out.bin", {"in": b"x" * 900_000}
        )

        assert (await portal.end_of(job))["status"] == "Completed"

    assert counted.read_text() == "x\n"


async def test_client_ends_when_it_has_nothing_to_do(
    start_server: StartServer, start_client: StartClient, session: aiohttp.ClientSession
) -> None:
    server = await start_server(**REGISTERED)
    client = await start_client(SERVER_URL=server.url, IDLE_EXIT="1s")
    portal = Portal(server.url, session)

    job = await portal.submit("sleep 2")

    assert (await portal.end_of(job))["status"] == "Completed"
    assert await client.died() == 0
    assert "IDLE_EXIT" in client.logged
    assert await clients_of(server, session) == {}


async def test_client_ends_at_the_end_of_its_lifetime_and_gives_its_job_back(
    start_server: StartServer,
    start_client: StartClient,
    session: aiohttp.ClientSession,
) -> None:
    server = await start_server(**REGISTERED)
    portal = Portal(server.url, session)
    job = await portal.submit("sleep 600")
    client = await start_client(SERVER_URL=server.url, LIFETIME="2s")

    assert await client.died() == 0
    assert "LIFETIME" in client.logged
    await portal.until(job, "Queued")


async def test_client_is_cut_off_when_its_token_is_revoked(
    start_server: StartServer,
    start_client: StartClient,
    session: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    file = tmp_path / "tokens"
    made = token_of(file, "--client", "--services", "example", "--uses", "1")
    admin = token_of(file, "--admin")
    server = await start_server(**REGISTERED, API_TOKENS_FILE=str(file))
    session.headers["Authorization"] = f"Bearer {admin}"
    client = await start_client(SERVER_URL=server.url, SERVER_TOKEN=made, CLIENT_NAME="laptop")
    used_up = await failed_start(tmp_path, "--server", server.url, SERVER_TOKEN=made)
    none = await failed_start(tmp_path, "--server", server.url)

    listed = jo_server(file, "token", "list")
    jo_server(file, "token", "revoke", listed.split()[0])

    await until_client_is(server, session, "laptop", "unreachable")
    assert "4401" not in client.logged
    assert "used by 1 other clients already" in used_up
    assert "does not accept SERVER_TOKEN" in none


def token_of(file: Path, *arguments: str) -> str:
    return jo_server(file, "token", "create", *arguments).strip()


def jo_server(file: Path, *arguments: str) -> str:
    return subprocess.run(
        [BIN / "jo-server", *arguments],
        env={"API_TOKENS_FILE": str(file), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout


NGINX = """\
daemon off; pid {folder}/pid; error_log stderr; worker_processes 1;
events {{ worker_connections 512; }}
http {{
  access_log off; client_max_body_size 0;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
    location / {{
      proxy_pass {server};
      {lines}
    }}
  }}
}}
"""

UPGRADE_LINES = """\
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection "upgrade";
"""


class Nginx:
    """nginx with TLS before a server."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.url = f"https://localhost:{port}"
        self.certificate = folder / "cert.pem"
        self._port = port
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, server: str, lines: str) -> None:
        text = NGINX.format(folder=self.folder, port=self._port, server=server, lines=lines)
        (self.folder / "nginx.conf").write_text(text)
        self._process = await asyncio.create_subprocess_exec(
            "nginx", "-e", "stderr", "-c", self.folder / "nginx.conf"
        )

        async def listens() -> bool:
            with contextlib.suppress(OSError):
                (await asyncio.open_connection("127.0.0.1", self._port))[1].close()
                return True
            return False

        await eventually(listens)

    def reload(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    async def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            await self._process.wait()
            self._process = None


def make_certificate(folder: Path) -> None:
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout key.pem -out cert.pem"
    more = "-subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run(
        f"{command} {more}".split(), cwd=folder, check=True, capture_output=True, timeout=120
    )


@pytest.fixture
async def nginx(tmp_path: Path, unused_tcp_port: int) -> AsyncIterator[Nginx]:
    if shutil.which("nginx") is None or shutil.which("openssl") is None:
        pytest.skip("nginx is not installed")
    folder = tmp_path / "nginx"
    folder.mkdir()
    make_certificate(folder)
    nginx = Nginx(folder, unused_tcp_port)
    yield nginx
    await nginx.stop()


async def test_jobs_run_through_nginx_with_tls_also_while_it_is_reloaded_and_restarted(
    start_server: StartServer,
    start_client: StartClient,
    session: aiohttp.ClientSession,
    nginx: Nginx,
    tmp_path: Path,
) -> None:
    counted = tmp_path / "counted"
    server = await start_server(**REGISTERED, ALLOWED_HOSTS="localhost")
    await nginx.start(server.url, UPGRADE_LINES)
    await start_client(
        SERVER_URL=nginx.url, SSL_CERT_FILE=str(nginx.certificate), CLIENT_NAME="laptop"
    )
    portal = Portal(server.url, session)

    job = await portal.submit(f"echo x >> {counted}; sleep 2; echo done")
    await portal.until(job, "Running")
    nginx.reload()
    assert (await portal.end_of(job))["status"] == "Completed"

    job = await portal.submit(f"echo x >> {counted}; sleep 3; head -c 3000000 /dev/zero > out")
    await portal.until(job, "Running")
    await nginx.stop()
    await nginx.start(server.url, UPGRADE_LINES)
    assert (await portal.end_of(job))["status"] == "Completed"
    assert counted.read_text() == "x\nx\n"


async def test_wrong_proxies_are_explained(
    start_server: StartServer, nginx: Nginx, tmp_path: Path
) -> None:
    server = await start_server(**REGISTERED)
    await nginx.start(server.url, "")
    trusted = {"SSL_CERT_FILE": str(nginx.certificate)}

    untrusted = await failed_start(tmp_path, "--server", nginx.url)
    wrong_path = await failed_start(tmp_path, "--server", f"{nginx.url}/portal", **trusted)
    no_upgrade = await first_warning(tmp_path, nginx.url, **trusted)
    await nginx.stop()
    await nginx.start(server.url, "return 302 https://login.example.org/?next=$uri;")
    login = await failed_start(tmp_path, "--server", nginx.url, **trusted)

    assert "can't be trusted" in untrusted
    assert "SSL_CERT_FILE" in untrusted
    assert "SERVER_URL is wrong" in wrong_path
    assert "proxy_set_header Upgrade $http_upgrade;" in no_upgrade
    assert "https://login.example.org/" in login


async def first_warning(folder: Path, url: str, **settings: str) -> str:
    """Start a jo-client that goes on dialing; return its first warning about that."""
    process = await asyncio.create_subprocess_exec(
        BIN / "jo-client",
        "--server",
        url,
        env={"PATH": f"{BIN}:/usr/bin:/bin", "DATA_PATH": str(folder / "data"), **settings},
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(120):
            async for line in process.stderr:
                if b"No connection to jo-server" in line:
                    return line.decode()
    finally:
        process.terminate()
        await process.communicate()
    raise AssertionError("there was no warning")


async def test_snippets_of_the_page_work_in_order(tmp_path: Path, unused_tcp_port: int) -> None:
    page = (Path(__file__).parents[1] / "docs" / "clients-behind-firewalls.md").read_text()
    found = re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    up = "until curl -sf http://localhost:5000/health > ping; do sleep 0.2; done\n"
    text = "\n".join([found[0], up, *found[1:]]).replace("5000", str(unused_tcp_port))
    script = f"set -euo pipefail\ntrap 'kill $(jobs -p)' EXIT\n{text}"

    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        script,
        cwd=tmp_path,
        env={"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(tmp_path), "HOST": "127.0.0.1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )

    output, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, output.decode()
    assert "connected" in output.decode()
