"""CLIENT_TOKEN: a client that has one takes orders from nobody else."""

import subprocess
import sys

import pytest
from aiohttp import web

from job_orchestrator.client.settings import read_settings
from job_orchestrator.common.errors import StartupError
from running_client import StartClient

TOKEN = "a-token-of-32-characters-or-more"


def requests_of(app: web.Application) -> list[tuple[str, str]]:
    """A request for every route, and one for nothing."""
    routes = [(route.method, route.resource) for route in app.router.routes()]
    known = [(m, r.canonical.format(id=1)) for m, r in routes if r and m not in ("*", "HEAD")]
    return [*known, ("GET", "/nothing"), ("PUT", "/submit")]


@pytest.mark.parametrize(
    "shown",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": "Bearer \udcff"},
    ],
)
async def test_client_with_a_token_refuses_everyone_else_on_every_path_but_health(
    start_client: StartClient, shown: dict[str, str]
) -> None:
    client = await start_client(CLIENT_TOKEN=TOKEN)
    requests = requests_of(client.app)
    assert ("POST", "/submit") in requests
    for method, path in requests:
        async with client.http.request(method, path, headers=shown, data=b"x") as response:
            if path == "/health":
                assert response.status == 200
                continue
            assert response.status == 401, (method, path)
            assert response.headers["WWW-Authenticate"] == "Bearer"
            answer = await response.json()
            assert (answer["id"], answer["status"]) == (0, "Unknown")
            assert "CLIENT_TOKEN" in answer["message"]


async def test_client_with_a_token_serves_whoever_shows_it(start_client: StartClient) -> None:
    client = await start_client(CLIENT_TOKEN=TOKEN)
    client.http.headers["Authorization"] = f"bearer  {TOKEN}"
    assert (await client.run("exit 0"))["status"] == "Completed"


@pytest.mark.parametrize("origin", ["https://evil.example.org", "null", "http://127.0.0.1:1"])
async def test_web_page_of_another_origin_can_not_submit(
    start_client: StartClient, origin: str
) -> None:
    client = await start_client()
    client.http.headers["Origin"] = origin
    status, answer = await client.post("exit 0")
    assert (status, answer["message"]) == (403, "Web pages of other origins may not ask here")
    # Swagger UI is a page of ours.
    del client.http.headers["Origin"]
    async with client.http.get("/load") as response:
        own = {"Origin": str(response.url.origin())}
        assert response.status == 200
    async with client.http.post("/kill/1", headers=own) as response:
        assert response.status == 404


async def test_client_without_a_token_asks_for_none(start_client: StartClient) -> None:
    client = await start_client()
    assert (await client.run("exit 0"))["status"] == "Completed"


def test_token_that_could_be_guessed_stops_the_start_and_is_not_repeated() -> None:
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
        # Root may read everything, whoever owns it. A change of the user hides too: undo that.
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "processes.set_attribute(processes.PR_SET_DUMPABLE, 1)\n"
        f"{hidden} and processes.become_unreadable()\n"
        "script = ['cat', f'/proc/{os.getpid()}/environ']\n"
        "sys.exit(subprocess.run(script, stdout=subprocess.DEVNULL).returncode)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], check=False)
    assert (result.returncode != 0) is hidden
