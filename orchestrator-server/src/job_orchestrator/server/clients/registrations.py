"""Clients that register themselves: which of them are admitted, and when they are forgotten.

A client dials the server and says its name, its identity and its services. Two clients can't have
one name at the same time. A client that was started again has another instance, but the identity
that is in its data folder: it takes over from its predecessor, whose connection may still seem to
be open.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakValueDictionary

import aiohttp
from aiohttp import WSMsgType

from job_orchestrator.common.errors import DomainError
from job_orchestrator.common.protocol.tunnel import (
    MAX_NAME,
    CloseCode,
    Hello,
    MalformedMessage,
    Refusal,
    Welcome,
    decode_text,
    encode_text,
)
from job_orchestrator.common.web.link_socket import MAX_REASON_BYTES, WebSocket
from job_orchestrator.common.web.tunnel.multiplexer import Multiplexer, TunnelBroken
from job_orchestrator.server import __version__
from job_orchestrator.server.clients.base import ClientTransport
from job_orchestrator.server.clients.connector import TunnelConnector
from job_orchestrator.server.clients.registry import Client, ClientRegistry
from job_orchestrator.server.errors import ClientInUse, ClientNotFound
from job_orchestrator.server.model import ClientGrant, ClientUrls, Registration, Service

logger = logging.getLogger(__name__)

HELLO_TIMEOUT_S = 10.0
PROBE_S = 5.0
"""Time for an open tunnel to answer, when another client wants its name."""

SEEN_INTERVAL_S = 60.0
"""Interval at which it is recorded that a client is connected."""

_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME - 1}}}")


class Refused(DomainError):
    """The server does not admit a client, or cuts it off. The message is for its administrator."""

    def __init__(self, close_code: int, message: str) -> None:
        super().__init__(message)
        self.close_code = close_code


class Records(Protocol):
    """Records that survive a restart of the server. See ``Registrations`` of the store."""

    async def all(self) -> Sequence[Registration]:
        """Return the clients that have registered themselves."""

    async def put(self, client: Registration) -> None:
        """Add or replace a client."""

    async def seen(self, name: str) -> None:
        """Record that a client was connected until now."""

    async def remove(self, name: str) -> None:
        """Remove a client."""

    async def use_token(self, token: str, identity: str, uses: int) -> bool:
        """Record the use of a token; False if it is used up."""

    async def drained(self) -> Collection[str]:
        """Return the names of drained clients."""

    async def set_drained(self, name: str, *, drained: bool) -> None:
        """Record whether a client is drained."""


@dataclass(frozen=True)
class Attendance:
    """Functions that begin and end the work of the server for one client."""

    begin: Callable[[Client], Awaitable[None]]
    end: Callable[[Client], Awaitable[None]]


NewTransport = Callable[[ClientUrls, TunnelConnector], ClientTransport]


class ClientRegistrations:
    """Admits clients that dial, holds their tunnels, and forgets those that stay away.

    ``now`` returns seconds since the epoch.
    """

    def __init__(
        self,
        registry: ClientRegistry,
        records: Records,
        services: Mapping[str, Service],
        new_transport: NewTransport,
        attendance: Attendance,
        *,
        forget_after_s: float,
        now: Callable[[], float],
        probe_s: float = PROBE_S,
    ) -> None:
        self._registry = registry
        self._records = records
        self._services = services
        self._new_transport = new_transport
        self._attendance = attendance
        self._forget_after_s = forget_after_s
        self._now = now
        self._probe_s = probe_s
        self._instances: dict[str, str] = {}
        # One client of a name at a time.
        self._admitting: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._stopping = asyncio.Event()

    async def load(self) -> None:
        """Load the clients of a previous run of the server. None of them is connected yet."""
        for registration in await self._records.all():
            await self._add(registration)
        for name in await self._records.drained():
            if (client := self._registry.get(name)) is not None:
                client.drained = True

    async def serve(self, socket: WebSocket, grant: ClientGrant, revoked: asyncio.Event) -> None:
        """Serve a client that has dialed, until its tunnel ends or its token is ``revoked``."""
        try:
            hello = await _receive_hello(socket)
            async with self._admitting.setdefault(hello.name, asyncio.Lock()):
                client, connector, tunnel = await self._admit(socket, hello, grant)
        except Refused as error:
            logger.warning("A client was refused: %s", error)
            await _refuse(socket, error)
            return
        except (TunnelBroken, TimeoutError, ConnectionError, aiohttp.ClientError) as error:
            logger.info("A client did not register: %s", error or "no message in time")
            await socket.close(code=CloseCode.MALFORMED, message=b"no valid hello")
            return
        logger.info("Client %s is registered for %s", client.name, ", ".join(_services_of(client)))
        try:
            reason = await self._hold(client, tunnel, revoked)
        finally:
            connector.on_end(tunnel)
        logger.info("The tunnel of client %s has ended: %s", client.name, reason)
        await self._after(client, tunnel)

    async def run_pass(self) -> None:
        """Record which clients are connected, and forget those that stay away without jobs."""
        for client in list(self._registry):
            registration = client.registration
            if registration is None or client.connector is None:
                continue
            if client.connector.is_connected:
                await self._seen(client)
            elif not client.jobs and self._now() - registration.seen_at >= self._forget_after_s:
                logger.info("Client %s is forgotten: it was not connected for long", client.name)
                await self._remove(client)

    async def drain(self, name: str, *, drained: bool) -> None:
        """Give a client no more jobs, or give it jobs again. Raises ``ClientNotFound``."""
        client = self._find(name)
        await self._records.set_drained(name, drained=drained)
        self._registry.drain(client, drained=drained)

    async def forget(self, name: str) -> None:
        """Forget a registered client. If it is connected, it ends.

        Raises ``ClientNotFound``, ``ClientInUse``.
        """
        client = self._find(name)
        if client.connector is None:
            raise ClientInUse(f"{name} is named in the settings of a service: remove it there")
        if client.jobs:
            raise ClientInUse(
                f"{name} has {len(client.jobs)} jobs: drain it, and forget it when they have ended"
            )
        await self._remove(client)

    def close(self) -> None:
        """End all tunnels: the server stops."""
        self._stopping.set()

    async def _hold(self, client: Client, tunnel: Multiplexer, revoked: asyncio.Event) -> str:
        """Wait for the end of a tunnel, or end it; return why."""
        running = asyncio.create_task(tunnel.run(), name="tunnel")
        ends = [
            asyncio.create_task(revoked.wait(), name="tunnel: token"),
            asyncio.create_task(self._stopping.wait(), name="tunnel: stop"),
        ]
        try:
            await asyncio.wait([running, *ends], return_when=asyncio.FIRST_COMPLETED)
            if revoked.is_set():
                tunnel.close(CloseCode.TOKEN, "the token was revoked or has expired")
            elif self._stopping.is_set():
                # First, so that its jobs do not become Unknown.
                await self._attendance.end(client)
                tunnel.close(aiohttp.WSCloseCode.GOING_AWAY, "the server stops")
            await running
        except TunnelBroken as error:
            return str(error)
        finally:
            for task in (running, *ends):
                task.cancel()
            await asyncio.gather(running, *ends, return_exceptions=True)
        return ""

    async def _after(self, client: Client, tunnel: Multiplexer) -> None:
        """Forget a client that said farewell; record when another one was last seen."""
        if self._registry.get(client.name) is not client or client.connector is None:
            return
        if tunnel.said_farewell and not client.jobs and not client.connector.is_connected:
            logger.info("Client %s has left", client.name)
            await self._remove(client)
        else:
            await self._seen(client)

    async def _admit(
        self, socket: WebSocket, hello: Hello, grant: ClientGrant
    ) -> tuple[Client, TunnelConnector, Multiplexer]:
        """Register a client and open its tunnel. Raises ``Refused``."""
        if not _NAME.fullmatch(hello.name):
            raise Refused(
                CloseCode.MALFORMED,
                f"CLIENT_NAME is {hello.name[:100]!r}; it must be at most {MAX_NAME} letters,"
                " digits, dots, hyphens and underscores",
            )
        if not (8 <= len(hello.identity) <= 100 and 8 <= len(hello.instance) <= 100):
            raise Refused(CloseCode.MALFORMED, "the hello has no identity or no instance")
        services = self._granted(hello, grant)
        client = self._registry.get(hello.name)
        if client is not None:
            await self._take_over(client, hello)
        if grant.uses is not None and not await self._records.use_token(
            grant.token, hello.identity, grant.uses
        ):
            raise Refused(
                CloseCode.TOKEN,
                f"the token was used by {grant.uses} other clients already, as many as it allows",
            )
        registration = Registration(hello.name, hello.identity, services, self._now())
        await self._records.put(registration)
        if client is None or client.connector is None:
            client, connector = await self._add(registration)
        else:
            connector = client.connector
            self._registry.update(client, registration)
        self._instances[hello.name] = hello.instance
        await socket.send_str(encode_text(Welcome(services=services, version=__version__)))
        tunnel = Multiplexer(socket, peer=hello.name)
        connector.on_open(tunnel)
        return client, connector, tunnel

    def _granted(self, hello: Hello, grant: ClientGrant) -> tuple[str, ...]:
        """Return the services that a client will get jobs of. Raises ``Refused``."""
        open_to_all = {name for name, service in self._services.items() if service.registered}
        wanted = {name.lower() for name in hello.services}
        if not wanted:
            wanted = open_to_all if grant.services is None else {*grant.services}
        if grant.services is not None and (foreign := wanted - grant.services):
            raise Refused(
                CloseCode.SERVICE, f"the token does not permit the service {min(foreign)}"
            )
        if unknown := wanted - open_to_all:
            name = min(unknown)
            why = (
                f"no client may register for the service {name}: its setting"
                f" SERVICE_{name.upper()}_CLIENTS is not registered"
                if name in self._services
                else f"jo-server has no service {name}"
            )
            raise Refused(CloseCode.SERVICE, why)
        if not wanted:
            raise Refused(
                CloseCode.SERVICE,
                "no service of jo-server takes clients that register themselves: set"
                " SERVICE_<NAME>_CLIENTS=registered there",
            )
        return tuple(sorted(wanted))

    async def _take_over(self, client: Client, hello: Hello) -> None:
        """End the earlier tunnel of a client that is the same or gone. Raises ``Refused``."""
        registration, connector = client.registration, client.connector
        if registration is None or connector is None:
            raise Refused(CloseCode.NAME_IN_USE, f"a configured client is named {hello.name}")
        tunnel = connector.tunnel
        same = registration.identity == hello.identity
        if tunnel is not None and tunnel.is_open:
            same_process = same and self._instances.get(hello.name) == hello.instance
            if not same_process and await tunnel.answers_within(self._probe_s):
                raise Refused(
                    CloseCode.NAME_IN_USE,
                    f"another client named {hello.name} is connected. Give this one another"
                    " CLIENT_NAME and DATA_PATH",
                )
            tunnel.close(CloseCode.REPLACED, "the client has connected again")
            connector.on_end(tunnel)
        if not same and client.jobs:
            raise Refused(
                CloseCode.NAME_IN_USE,
                f"another client named {hello.name} may still run {len(client.jobs)} jobs. Give"
                " this one another CLIENT_NAME, or wait until the server has given up the other"
                " one (LOST_AFTER)",
            )

    async def _add(self, registration: Registration) -> tuple[Client, TunnelConnector]:
        base = f"http://{registration.name}.localhost"
        urls = ClientUrls(
            f"{base}/submit", f"{base}/retrieve", f"{base}/kill", registered_as=registration.name
        )
        connector = TunnelConnector()
        transport = self._new_transport(urls, connector)
        client = self._registry.register(transport, registration, connector)
        await self._attendance.begin(client)
        return client, connector

    def _find(self, name: str) -> Client:
        client = self._registry.get(name)
        if client is None:
            raise ClientNotFound(f"There is no client {name[:100]!r}")
        return client

    async def _seen(self, client: Client) -> None:
        await self._records.seen(client.name)
        if (registration := client.registration) is not None:
            client.registration = Registration(
                registration.name, registration.identity, registration.services, self._now()
            )

    async def _remove(self, client: Client) -> None:
        await self._records.remove(client.name)
        self._registry.remove(client)
        self._instances.pop(client.name, None)
        if client.connector is not None and client.connector.tunnel is not None:
            client.connector.tunnel.close(CloseCode.FORGOTTEN, "an administrator has removed it")
        await self._attendance.end(client)
        await client.transport.close()


def _services_of(client: Client) -> Sequence[str]:
    return client.registration.services if client.registration is not None else ()


async def _receive_hello(socket: WebSocket) -> Hello:
    """Wait for the first message. Raises ``Refused``, ``TunnelBroken``, ``TimeoutError``."""
    async with asyncio.timeout(HELLO_TIMEOUT_S):
        message = await socket.receive()
    if message.type is not WSMsgType.TEXT:
        raise TunnelBroken("the connection ended before the hello")
    try:
        hello = decode_text(message.data)
    except MalformedMessage as error:
        raise Refused(CloseCode.TOO_OLD, f"the hello can't be read: {error}") from error
    if not isinstance(hello, Hello):
        raise Refused(CloseCode.MALFORMED, "the first message is no hello")
    return hello


async def _refuse(socket: WebSocket, error: Refused) -> None:
    try:
        await socket.send_str(encode_text(Refusal(str(error))))
        short = str(error).encode()[:MAX_REASON_BYTES].decode("utf-8", "ignore").encode()
        await socket.close(code=error.close_code, message=short)
    except (ConnectionError, aiohttp.ClientError) as broken:
        logger.debug("The refusal was not sent: %s", broken)
