"""Tunnel to a server: dials it, serves its requests, and dials it again when the tunnel breaks."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import WSMsgType, hdrs

from job_orchestrator.client import __version__
from job_orchestrator.client.registration.diagnosis import FATAL_CODES, Redirected, diagnose
from job_orchestrator.client.registration.identity import Identity, load_identity
from job_orchestrator.common.errors import StartupError
from job_orchestrator.common.protocol.bearer import authorization_header
from job_orchestrator.common.protocol.tunnel import (
    HEARTBEAT_S,
    MAX_MESSAGE_BYTES,
    PATH,
    SUBPROTOCOL,
    CloseCode,
    Hello,
    MalformedMessage,
    Refusal,
    Welcome,
    decode_text,
    encode_text,
)
from job_orchestrator.common.runtime.backoff import Backoff
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.web.tunnel.multiplexer import Accept, Multiplexer, TunnelBroken

logger = logging.getLogger(__name__)

DIAL_TIMEOUT_S = 20.0
CLOSE_TIMEOUT_S = 2.0
RECONNECT = Backoff((0.3, 1.0, 2.0, 5.0, 10.0, 30.0), jitter=0.5)
"""Delays before the server is dialed again. Jitter: after a restart of the server all clients do
so."""

STEADY_S = 10.0
"""Time after which a tunnel that breaks was a good one."""

IDLE_CHECK_S = 1.0


@dataclass(frozen=True)
class Destination:
    """The server to dial, and what the client says of itself; see the settings of these names."""

    url: str
    token: str | None
    services: tuple[str, ...]
    name: str | None
    data_path: Path


class RegistrationRefused(StartupError):
    """The server, or a proxy before it, does not admit this client."""


class Dialer:
    """Entrance to the client through a tunnel that it dials; see ``Entrance``.

    The client ends by itself when it has been idle for ``idle_exit_s``, and ``lifetime_s`` after
    its start (0: never). ``is_idle`` returns whether it has nothing to do for any server.
    """

    def __init__(
        self,
        destination: Destination,
        is_idle: Callable[[], Awaitable[bool]],
        *,
        idle_exit_s: float = 0.0,
        lifetime_s: float = 0.0,
        backoff: Backoff = RECONNECT,
    ) -> None:
        self._destination = destination
        self._is_idle = is_idle
        self._idle_exit_s = idle_exit_s
        self._lifetime_s = lifetime_s
        self._backoff = backoff
        self._tunnel: Multiplexer | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._was_connected = False
        self._leaving = False
        self._failures = 0

    @property
    def connections(self) -> int:
        """See ``Entrance.connections``: the streams of the tunnel."""
        return 0 if self._tunnel is None else self._tunnel.open_streams

    async def open(self, accept: Accept) -> None:
        """Dial the server from now on; ``accept`` creates the protocol of each of its requests."""
        destination = self._destination
        identity = await in_thread(load_identity, destination.data_path, destination.name)
        self._tasks = [asyncio.create_task(self._dial_always(identity, accept), name="dialer")]
        if self._idle_exit_s:
            self._tasks.append(asyncio.create_task(self._wait_until_idle(), name="idle exit"))
        if self._lifetime_s:
            self._tasks.append(asyncio.create_task(self._wait_for_end(), name="lifetime"))

    async def wait(self) -> None:
        """Return when the client has to end. Raises ``RegistrationRefused``."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task

    async def leave(self) -> None:
        """Report to the server that this client does not come back, and end the tunnel."""
        self._leaving = True
        if self._tunnel is not None and self._tunnel.is_open:
            await self._tunnel.say_farewell()
            await asyncio.wait(self._tasks[:1], timeout=CLOSE_TIMEOUT_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _dial_always(self, identity: Identity, accept: Accept) -> None:
        loop = asyncio.get_running_loop()
        # The environment may name proxies.
        async with aiohttp.ClientSession(
            trust_env=True, middlewares=[_refuse_redirects]
        ) as session:
            while not self._leaving:
                began = loop.time()
                try:
                    await self._dial(session, identity, accept)
                except TunnelBroken as error:
                    self._on_broken(error)
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    self._on_failure(error)
                if loop.time() - began > STEADY_S:
                    self._failures = 0
                self._failures += 1
                if self._leaving:
                    return
                await asyncio.sleep(self._backoff.delay_s(self._failures))

    async def _dial(
        self, session: aiohttp.ClientSession, identity: Identity, accept: Accept
    ) -> None:
        """Hold one tunnel until it breaks. Raises ``TunnelBroken`` or the error of a connection."""
        destination = self._destination
        headers = {}
        if destination.token is not None:
            headers[hdrs.AUTHORIZATION] = authorization_header(destination.token)
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            socket = await session.ws_connect(
                destination.url + PATH,
                headers=headers,
                protocols=[SUBPROTOCOL],
                heartbeat=HEARTBEAT_S,
                max_msg_size=MAX_MESSAGE_BYTES,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
            )
        async with socket:
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                welcome = await self._register(socket, identity)
            logger.info(
                "Connected to %s as %s, for %s",
                destination.url,
                identity.name,
                ", ".join(welcome.services),
            )
            self._was_connected = True
            self._tunnel = Multiplexer(socket, accept=accept, peer="jo-server")
            try:
                await self._tunnel.run()
            finally:
                self._tunnel = None

    async def _register(
        self, socket: aiohttp.ClientWebSocketResponse, identity: Identity
    ) -> Welcome:
        hello = Hello(
            name=identity.name,
            identity=identity.identity,
            instance=identity.instance,
            services=self._destination.services,
            version=__version__,
        )
        await socket.send_str(encode_text(hello))
        message = await socket.receive()
        if message.type is not WSMsgType.TEXT:
            raise TunnelBroken(f"no welcome of the server: {message.extra or 'it hung up'}")
        try:
            answer = decode_text(message.data)
        except MalformedMessage as error:
            raise TunnelBroken(f"what answers is not jo-server: {error}") from error
        if isinstance(answer, Refusal):
            end = await socket.receive()
            raise TunnelBroken(answer.message, end.data if end.type is WSMsgType.CLOSE else None)
        if not isinstance(answer, Welcome):
            raise TunnelBroken("the server has sent no welcome")
        return answer

    def _on_broken(self, error: TunnelBroken) -> None:
        """Log the end of a tunnel. Raises ``RegistrationRefused`` if dialing is in vain."""
        if self._leaving:
            return
        code = error.close_code
        refused = code is not None and code >= CloseCode.MALFORMED
        if code in FATAL_CODES or (refused and not self._was_connected):
            raise RegistrationRefused(f"jo-server has refused this client: {error}")
        logger.warning("The tunnel to %s has ended: %s", self._destination.url, error)

    def _on_failure(self, error: Exception) -> None:
        """Log a failed attempt. Raises ``RegistrationRefused`` if dialing is in vain."""
        found = diagnose(error, self._destination.url)
        if found.is_final and not self._was_connected:
            raise RegistrationRefused(found.message)
        logger.warning("No connection to jo-server: %s", found.message)

    async def _wait_until_idle(self) -> None:
        """Return when the client has been idle for long, whether it is connected or not."""
        loop = asyncio.get_running_loop()
        since = loop.time()
        while loop.time() - since < self._idle_exit_s:
            await asyncio.sleep(min(IDLE_CHECK_S, self._idle_exit_s / 4))
            if not await self._is_idle():
                since = loop.time()
        logger.info("Stopping: nothing to do for %g s (IDLE_EXIT)", self._idle_exit_s)

    async def _wait_for_end(self) -> None:
        await asyncio.sleep(self._lifetime_s)
        logger.info("Stopping: %g s since the start (LIFETIME)", self._lifetime_s)


async def _refuse_redirects(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Raise ``Redirected`` instead of following to a page that is not of jo-server."""
    response = await handler(request)
    if 300 <= response.status < 400:
        location = response.headers.get(hdrs.LOCATION, "nowhere")
        response.close()
        raise Redirected(location)
    return response
