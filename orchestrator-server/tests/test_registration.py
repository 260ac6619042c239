"""Clients that register themselves at a server in the loop of the test."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType
from aiohttp.test_utils import TestServer

from fake_client import FakeClient
from job_orchestrator.common.protocol.tunnel import (
    PATH,
    SUBPROTOCOL,
    CloseCode,
    Hello,
    Refusal,
    Welcome,
    decode_text,
    encode_text,
)
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.web.tunnel.multiplexer import Multiplexer, TunnelBroken
from job_orchestrator.server import keys
from job_orchestrator.server.auth.token_file import create_token, revoke_token
from running_server import Server, StartServer


class Dialed:
    """A fake client that has dialed a server."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, client: FakeClient) -> None:
        self.socket = socket
        self.client = client
        self.end: asyncio.Future[TunnelBroken] = asyncio.get_running_loop().create_future()
        self.tunnel: Multiplexer | None = None

    async def run(self, tunnel: Multiplexer) -> None:
        try:
            await tunnel.run()
        except TunnelBroken as error:
            if not self.end.done():
                self.end.set_result(error)


Dial = Callable[..., Awaitable[Dialed | tuple[int, str]]]


@pytest.fixture
async def dial() -> AsyncIterator[Dial]:
    """Dial a server; return the client, or code and message of the refusal."""
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        tasks: list[asyncio.Task[None]] = []

        async def dialed(
            server: Server,
            *,
            name: str = "laptop",
            identity: str = "identity-1",
            instance: str = "instance-1",
            services: tuple[str, ...] = (),
            token: str = "",
        ) -> Dialed | tuple[int, str]:
            client = FakeClient()
            client.offers_link = True
            fake = TestServer(client.app())
            await stack.enter_async_context(fake)
            socket = await http.ws_connect(
                server.url.with_path(PATH),
                protocols=[SUBPROTOCOL],
                headers={"Authorization": f"Bearer {token}"} if token else {},
            )
            stack.push_async_callback(socket.close)
            hello = Hello(name=name, identity=identity, instance=instance, services=services)
            await socket.send_str(encode_text(hello))
            answer = decode_text((await socket.receive()).data)
            if isinstance(answer, Refusal):
                end = await socket.receive()
                assert end.type is WSMsgType.CLOSE
                return int(end.data), answer.message
            assert isinstance(answer, Welcome)
            found = Dialed(socket, client)
            assert fake.runner is not None
            accept = fake.runner.server
            assert accept is not None
            found.tunnel = Multiplexer(socket, accept=accept, peer="server")
            tasks.append(asyncio.create_task(found.run(found.tunnel)))
            return found

        yield dialed
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def server(start_server: StartServer) -> Server:
    return await start_server(SERVICE_EXAMPLE_CLIENTS="registered")


def connected(found: Dialed | tuple[int, str]) -> Dialed:
    assert isinstance(found, Dialed), found
    return found


async def clients_of(server: Server) -> dict[str, dict[str, Any]]:
    return {each["url"]: each for each in (await server.get_json("/clients"))["clients"]}


async def test_job_runs_on_a_registered_client(server: Server, dial: Dial) -> None:
    client = connected(await dial(server)).client
    job = await server.submit()

    client.complete(await client.submitted.get())

    assert (await server.ended(job))[0] == "Completed"
    shown = (await clients_of(server))["laptop"]
    assert (shown["registered"], shown["services"]) == (True, ["example"])


async def test_client_that_lives_is_not_replaced_by_another_one_of_its_name(
    server: Server, dial: Dial
) -> None:
    first = connected(await dial(server))

    code, message = await refused(dial(server, identity="identity-2"))
    same, _ = await refused(dial(server, instance="instance-2"))

    assert code == same == CloseCode.NAME_IN_USE
    assert "another client named laptop is connected" in message
    assert not first.end.done()


async def refused(dialing: Awaitable[Dialed | tuple[int, str]]) -> tuple[int, str]:
    found = await dialing
    assert isinstance(found, tuple), "the client was admitted"
    return found


async def test_process_that_dials_again_replaces_its_own_tunnel(server: Server, dial: Dial) -> None:
    first = connected(await dial(server))

    second = connected(await dial(server))

    assert (await asyncio.wait_for(first.end, 60)).close_code == CloseCode.REPLACED
    job = await server.submit()
    second.client.complete(await second.client.submitted.get())
    assert (await server.ended(job))[0] == "Completed"


async def test_client_that_says_farewell_is_forgotten_and_another_may_have_its_name(
    server: Server, dial: Dial
) -> None:
    first = connected(await dial(server))
    assert first.tunnel is not None
    await first.tunnel.say_farewell()
    await server.eventually(lambda: server.clients.get("laptop") is None)

    assert server.rows("SELECT name FROM registrations") == []
    connected(await dial(server, identity="identity-2"))


async def test_name_of_a_client_with_jobs_is_kept_for_it(server: Server, dial: Dial) -> None:
    first = connected(await dial(server))
    await server.submit()
    await first.client.submitted.get()
    await first.socket.close()

    code, message = await refused(dial(server, identity="identity-2"))

    assert code == CloseCode.NAME_IN_USE
    assert "may still run 1 jobs" in message
    connected(await dial(server, instance="instance-2"))


async def test_registration_survives_a_restart_of_the_server(
    start_server: StartServer, dial: Dial
) -> None:
    first = await start_server(SERVICE_EXAMPLE_CLIENTS="registered")
    client = connected(await dial(first))
    await first.submit()
    await client.client.submitted.get()

    second = await start_server(
        SERVICE_EXAMPLE_CLIENTS="registered", DATA_PATH=str(first.root / "data-2")
    )

    assert (await clients_of(second))["laptop"]["jobs"] == 1
    code, _ = await refused(dial(second, identity="identity-2"))
    assert code == CloseCode.NAME_IN_USE


async def test_drained_client_gets_no_job_until_it_is_resumed(server: Server, dial: Dial) -> None:
    client = connected(await dial(server)).client
    async with server.http.post("/clients/laptop/drain") as response:
        assert response.status == 200
    job = await server.submit()
    assert "is drained" in (await server.state(job))[1]
    assert client.submitted.empty()

    async with server.http.post("/clients/laptop/resume") as response:
        assert response.status == 200

    client.complete(await client.submitted.get())
    assert (await server.ended(job))[0] == "Completed"


async def test_client_with_jobs_is_not_forgotten_and_an_idle_one_ends(
    server: Server, dial: Dial
) -> None:
    dialed = connected(await dial(server))
    job = await server.submit()
    payload = await dialed.client.submitted.get()
    async with server.http.delete("/clients/laptop") as response:
        assert response.status == 409
        assert "drain it" in (await response.json())["message"]
    dialed.client.complete(payload)
    await server.ended(job)

    async with server.http.delete("/clients/laptop") as response:
        assert response.status == 200

    assert (await asyncio.wait_for(dialed.end, 60)).close_code == CloseCode.FORGOTTEN
    assert await clients_of(server) == {}


async def test_client_that_stays_away_is_forgotten(start_server: StartServer, dial: Dial) -> None:
    server = await start_server(SERVICE_EXAMPLE_CLIENTS="registered", FORGET_CLIENTS_AFTER="0.01s")
    dialed = connected(await dial(server))
    await dialed.socket.close()
    client = server.clients.get("laptop")
    assert client is not None
    await server.eventually(
        lambda: client.connector is not None and not client.connector.is_connected
    )
    await asyncio.sleep(0.05)

    await server.app[keys.REGISTRATIONS].run_pass()

    assert await clients_of(server) == {}


@pytest.mark.parametrize("name", ["", "-x", "a" * 64, "a b", "a/b", "http://x"])
async def test_name_that_is_none_is_refused(server: Server, dial: Dial, name: str) -> None:
    code, _ = await refused(dial(server, name=name))
    assert code == CloseCode.MALFORMED


async def test_services_without_registration_are_refused(
    start_server: StartServer, dial: Dial
) -> None:
    server = await start_server(
        SERVICE_EXAMPLE_CLIENTS="registered",
        SERVICE_CLOSED_UPLOAD_URL="http://127.0.0.1:9",
        SERVICE_CLOSED_DOWNLOAD_URL="http://127.0.0.1:9",
    )
    closed, why = await refused(dial(server, services=("closed",)))
    unknown, _ = await refused(dial(server, services=("nothing",)))
    assert closed == unknown == CloseCode.SERVICE
    assert "SERVICE_CLOSED_CLIENTS" in why


@pytest.mark.parametrize("message", ["", "{}", "[]", "x" * 20_000, '{"type":"bye"}'])
async def test_hello_that_is_none_is_refused(server: Server, message: str) -> None:
    async with server.http.ws_connect(PATH, protocols=[SUBPROTOCOL]) as socket:
        await socket.send_str(message)
        assert isinstance(decode_text((await socket.receive()).data), Refusal)
        assert (await socket.receive()).data in (CloseCode.TOO_OLD, CloseCode.MALFORMED)


async def test_request_without_upgrade_says_what_the_proxy_lacks(server: Server) -> None:
    async with server.http.get(PATH) as response:
        assert response.status == 400
        assert "proxy_set_header Upgrade $http_upgrade" in (await response.json())["message"]


class TestTokens:
    """With API_TOKENS_FILE."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        return tmp_path / "tokens"

    @pytest.fixture
    async def admin(self, file: Path) -> str:
        return (await in_thread(create_token, file, user_id=None, label="", valid_s=None))[0]

    @pytest.fixture
    async def server(self, start_server: StartServer, file: Path, admin: str) -> Server:
        server = await start_server(
            SERVICE_EXAMPLE_CLIENTS="registered",
            SERVICE_OTHER_CLIENTS="registered",
            API_TOKENS_FILE=str(file),
        )
        server.http.headers["Authorization"] = f"Bearer {admin}"
        return server

    async def token(self, file: Path, uses: int | None = None) -> tuple[str, str]:
        made, kept = await in_thread(
            create_token,
            file,
            user_id=None,
            label="",
            valid_s=None,
            services=("example",),
            uses=uses,
        )
        return made, kept.id

    async def test_client_serves_only_the_services_of_its_token(
        self, server: Server, file: Path, dial: Dial
    ) -> None:
        made, _ = await self.token(file)
        code, message = await refused(dial(server, token=made, services=("other",)))
        connected(await dial(server, token=made))
        assert code == CloseCode.SERVICE
        assert "does not permit the service other" in message
        assert (await clients_of(server))["laptop"]["services"] == ["example"]

    async def test_token_of_one_client_is_used_up_by_it(
        self, server: Server, file: Path, dial: Dial
    ) -> None:
        made, _ = await self.token(file, uses=1)
        first = connected(await dial(server, token=made))
        await first.socket.close()
        connected(await dial(server, token=made, instance="instance-2"))

        code, _ = await refused(dial(server, token=made, name="b", identity="identity-2"))

        assert code == CloseCode.TOKEN

    async def test_client_is_cut_off_when_its_token_is_revoked(
        self, server: Server, file: Path, dial: Dial
    ) -> None:
        made, token_id = await self.token(file)
        dialed = connected(await dial(server, token=made))

        await in_thread(revoke_token, file, token_id)

        assert (await asyncio.wait_for(dialed.end, 60)).close_code == CloseCode.TOKEN
        with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
            await dial(server, token=made)

    async def test_other_tokens_register_no_client(
        self, server: Server, file: Path, admin: str, dial: Dial
    ) -> None:
        user, _ = await in_thread(create_token, file, user_id=1, label="", valid_s=None)
        for token in (user, admin):
            with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                await dial(server, token=token)
        with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
            await dial(server, token=secrets.token_urlsafe(32))

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/jobs"),
            ("GET", "/clients"),
            ("GET", "/services"),
            ("GET", "/whoami"),
            ("GET", "/events"),
            ("POST", "/upload"),
            ("GET", "/download/1"),
            ("POST", "/clients/laptop/drain"),
        ],
    )
    async def test_token_of_a_client_opens_nothing_else(
        self, server: Server, file: Path, method: str, path: str
    ) -> None:
        made, _ = await self.token(file)
        headers = {"Authorization": f"Bearer {made}"}
        async with server.http.request(method, path, headers=headers) as response:
            assert response.status == 403
