"""Requests that web pages of other sites make browsers send."""

import socket
from collections.abc import Mapping

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from job_orchestrator.common.web.answers import front_page
from job_orchestrator.common.web.errors import error_middleware
from job_orchestrator.common.web.foreign_pages import PagePolicy, refuse_foreign_pages

PORTAL = "https://portal.example.org"
POLICY = PagePolicy(
    service="jo-server",
    hosts=(),
    address="0.0.0.0",  # noqa: S104 (the default of HOST)
    token_setting="API_TOKENS_FILE",
    has_tokens=False,
)


async def ask(
    policy: PagePolicy, headers: Mapping[str, str], method: str = "POST"
) -> tuple[int, str]:
    """Send a request to a service with a policy; return status and body."""

    def body(_: web.Request | None, __: Exception | None, message: str) -> bytes:
        return message.encode()

    middlewares = [error_middleware({}, body), refuse_foreign_pages(policy)]
    app = web.Application(middlewares=middlewares)
    app.router.add_route("*", "/", front_page("/docs/", api="/docs/"))
    async with (
        TestServer(app) as server,
        ClientSession() as http,
        http.request(method, server.make_url("/"), headers=headers) as response,
    ):
        return response.status, await response.text()


def policy(**values: object) -> PagePolicy:
    fields = {name: getattr(POLICY, name) for name in POLICY.__dataclass_fields__}
    return PagePolicy(**{**fields, **values})


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "host",
    [
        "evil.example:5000",
        "evil.example",
        "EVIL.example.",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.local.example",
        "[::1].evil.example",
        "[::1]evil",
        "[evil]",
        "localhost:80.evil.example",
        "evil\u3002example",
        "evil\uff0eexample.local",
    ],
)
async def test_trap_69_request_for_another_host_name_is_refused(host: str, method: str) -> None:
    status, message = await ask(POLICY, {"Host": host}, method)
    assert status == 421
    assert "add it to ALLOWED_HOSTS of jo-server" in message
    assert "not necessary where API_TOKENS_FILE is set" in message


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:5000",
        "10.1.2.3",
        "[::1]:5000",
        "[fe80::1]",
        "localhost",
        "LOCALHOST.:5000",
        "client",
        "client-1:9000",
        "jo.localhost",
        "node.local",
        "host.docker.internal:5000",
        socket.gethostname(),
    ],
)
async def test_own_addresses_and_names_that_nobody_can_register_are_answered(host: str) -> None:
    assert (await ask(POLICY, {"Host": host}))[0] == 200


@pytest.mark.parametrize(
    ("hosts", "host", "status"),
    [
        (("jo.example.org",), "JO.example.org:80", 200),
        (("jo.example.org",), "x.jo.example.org", 421),
        (("*.example.org",), "jo.example.org", 200),
        (("*.example.org",), "example.org.evil.com", 421),
        (("*",), "evil.example", 200),
    ],
)
async def test_names_of_allowed_hosts_are_answered(
    hosts: tuple[str, ...], host: str, status: int
) -> None:
    assert (await ask(policy(hosts=hosts), {"Host": host}))[0] == status


async def test_name_of_the_address_to_listen_on_is_answered() -> None:
    assert (await ask(policy(address="Jo.Example.org"), {"Host": "jo.example.org"}))[0] == 200


async def test_any_host_name_is_answered_where_tokens_are_required() -> None:
    assert (await ask(policy(has_tokens=True), {"Host": "jo.example.org"}))[0] == 200


FOREIGN: list[dict[str, str]] = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://evil.example", "Authorization": "Basic eA=="},
]


@pytest.mark.parametrize("has_tokens", [True, False])
@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH", "PUT"])
@pytest.mark.parametrize("headers", FOREIGN)
async def test_request_of_another_page_is_refused_on_every_unsafe_method(
    headers: dict[str, str], method: str, has_tokens: bool
) -> None:
    status, message = await ask(policy(has_tokens=has_tokens, hosts=("*",)), headers, method)
    assert status == 403
    assert "Cross-origin requests are not allowed" in message
    assert "ALLOWED_HOSTS of jo-server" in message


async def test_web_socket_of_another_page_is_refused() -> None:
    headers = {"Origin": "https://evil.example", "Upgrade": "websocket", "Connection": "Upgrade"}
    assert (await ask(POLICY, headers, "GET"))[0] == 403


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "jo:5000", "Origin": "http://jo:5000"},
        {"Host": "jo:5000", "Origin": "http://JO:5000"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://jo.example.org", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "https://evil.example", "Authorization": "Bearer jo_x"},
    ],
    ids=str,
)
async def test_programs_and_own_pages_may_use_unsafe_methods(headers: dict[str, str]) -> None:
    assert (await ask(POLICY, headers))[0] == 200


@pytest.mark.parametrize(
    ("values", "origin", "status"),
    [
        ({"origins": frozenset({PORTAL})}, PORTAL, 200),
        ({"origins": frozenset({PORTAL})}, "https://evil.example", 403),
        ({"origins": frozenset({"*"})}, "https://evil.example", 200),
        ({"hosts": ("portal.example.org",)}, PORTAL, 200),
        ({"hosts": ("portal.example.org",)}, f"{PORTAL}.evil.example", 403),
    ],
)
async def test_pages_that_the_settings_name_may_use_unsafe_methods(
    values: dict[str, object], origin: str, status: int
) -> None:
    headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
    assert (await ask(policy(**values), headers))[0] == status


async def test_safe_methods_need_no_origin() -> None:
    assert (await ask(POLICY, FOREIGN[0], "GET"))[0] == 200
