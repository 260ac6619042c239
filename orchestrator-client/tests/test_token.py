"""CLIENT_TOKEN: jo-client accepts requests with this token only."""

import subprocess
import sys

import pytest
from aiohttp import web

from job_orchestrator.client.settings import read_settings
from job_orchestrator.common.errors import StartupError
from running_client import StartClient

TOKEN = "a-token-of-32-characters-or-more"


def requests_of(app: web.Application) -> list[tuple[str, str]]:
    """List a request for each route, and requests for paths that have no route."""
    routes = [(route.method, route.resource) for route in app.router.routes()]
    known = [(m, r.canonical.format(id=1)) for m, r in routes if r and m not in ("*", "HEAD")]
    return [*known, ("GET", "/nothing"), ("PUT", "/submit")]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": "Bearer \udcff"},
    ],
)
async def test_request_without_the_token_is_refused_on_every_path_but_health(
    start_client: StartClient, headers: dict[str, str]
) -> None:
    client = await start_client(CLIENT_TOKEN=TOKEN)
    requests = requests_of(client.app)
    assert ("POST", "/submit") in requests
    for method, path in requests:
        async with client.http.request(method, path, headers=headers, data=b"x") as response:
            if path == "/health":
                assert response.status == 200
                continue
            assert response.status == 401, (method, path)
            assert response.headers["WWW-Authenticate"] == "Bearer"
            answer = await response.json()
            assert (answer["id"], answer["status"]) == (0, "Unknown")
            assert "CLIENT_TOKEN" in answer["message"]


async def test_request_with_the_token_is_served(start_client: StartClient) -> None:
    client = await start_client(CLIENT_TOKEN=TOKEN)
    client.http.headers["Authorization"] = f"bearer  {TOKEN}"
    assert (await client.run("exit 0"))["status"] == "Completed"


@pytest.mark.parametrize("origin", ["https://evil.example.org", "null", "http://127.0.0.1:1"])
async def test_cross_origin_request_is_refused(start_client: StartClient, origin: str) -> None:
    client = await start_client()
    client.http.headers["Origin"] = origin
    status, answer = await client.post("exit 0")
    assert (status, answer["message"]) == (
        403,
        "Cross-origin requests are not allowed. If the page belongs to this service, add the host"
        " name of the page to ALLOWED_HOSTS of jo-client",
    )
    # Swagger UI has the same origin as the API.
    del client.http.headers["Origin"]
    async with client.http.get("/load") as response:
        own = {"Origin": str(response.url.origin())}
        assert response.status == 200
    async with client.http.post("/kill/1", headers=own) as response:
        assert response.status == 404


async def test_client_without_a_token_needs_none(start_client: StartClient) -> None:
    client = await start_client()
    assert (await client.run("exit 0"))["status"] == "Completed"


def test_short_token_stops_the_start_and_is_not_repeated() -> None:
    with pytest.raises(
        StartupError, match="CLIENT_TOKEN can't be used; it must be at least 16"
    ) as refused:
        read_settings({"CLIENT_TOKEN": "abcd"}, {})
    assert "abcd" not in str(refused.value)


def test_token_can_not_be_passed_to_scripts() -> None:
    with pytest.raises(StartupError, match="PASS_ENV"):
        read_settings({"PASS_ENV": "A, CLIENT_TOKEN"}, {})


@pytest.mark.parametrize("hidden", [True, False])
def test_script_that_runs_as_the_same_user_can_not_read_the_token(hidden: bool) -> None:
    program = (
        "import os, subprocess, sys\n"
        "from job_orchestrator.client.executors.local import processes\n"
        # Root can read every file. The kernel also hides the environment after a change of the
        # user, which is undone here.
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "processes.set_attribute(processes.PR_SET_DUMPABLE, 1)\n"
        f"{hidden} and processes.become_unreadable()\n"
        "script = ['cat', f'/proc/{os.getpid()}/environ']\n"
        "sys.exit(subprocess.run(script, stdout=subprocess.DEVNULL).returncode)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], check=False)
    assert (result.returncode != 0) is hidden
