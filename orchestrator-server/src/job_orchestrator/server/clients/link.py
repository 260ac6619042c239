"""Transport over the link: small requests and events in one stream, large bodies by HTTP."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from job_orchestrator.common.logs.context import request_id
from job_orchestrator.common.messages.payloads import InventoryEntry, Payload
from job_orchestrator.common.protocol import link
from job_orchestrator.common.protocol.multipart_writer import FormBody
from job_orchestrator.common.web.link_socket import LinkBroken, LinkSocket
from job_orchestrator.server import __version__
from job_orchestrator.server.clients.base import ClientEvent, OutputStream, Receiver, SmallInputs
from job_orchestrator.server.clients.connector import Connector, TcpConnector
from job_orchestrator.server.clients.http import HttpTransport
from job_orchestrator.server.clients.http_connection import (
    ANSWER_TIMEOUT_S,
    ClientConnection,
    LinkNotOffered,
)
from job_orchestrator.server.clients.link_session import LinkSession
from job_orchestrator.server.errors import AnswerLost, ClientFailed, ClientTimeout
from job_orchestrator.server.model import ClientUrls, Service, StoredOutput
from job_orchestrator.server.tuning import Tuning

logger = logging.getLogger(__name__)

DEFAULTS = Tuning()


@dataclass(frozen=True)
class LinkTerms:
    """Description of this server, which every client gets.

    ``installation`` is the identity of its database. Results of at most ``max_result_bytes`` travel
    in the link.
    """

    installation: str
    max_result_bytes: int


def link_transports(
    services: Iterable[Service], token: str | None, terms: LinkTerms, tuning: Tuning = DEFAULTS
) -> list["LinkTransport"]:
    """Create one transport for each configured client. A client may belong to several services."""
    urls = {each.name: each for service in services for each in service.clients}
    return [LinkTransport(each, TcpConnector(token), terms, tuning) for each in urls.values()]


class LinkTransport:
    """``ClientTransport`` over a link, with the documented HTTP requests next to it.

    The link is open while the events are followed. Without it, as with an older client, everything
    goes by HTTP. Large files and results, and the output that users read, always do. A request may
    be repeated in the other way, because keys and ids identify what must not happen twice.
    """

    def __init__(
        self,
        urls: ClientUrls,
        connector: Connector,
        terms: LinkTerms,
        tuning: Tuning = DEFAULTS,
    ) -> None:
        self._connection = ClientConnection(urls, connector)
        self._http = HttpTransport(urls, self._connection, tuning)
        self._terms = terms
        self._tuning = tuning
        self._session: LinkSession | None = None

    @property
    def name(self) -> str:
        """The client's name: its upload URL."""
        return self._http.name

    async def close(self) -> None:
        """Close all connections."""
        await self._http.close()

    async def submit(
        self, files: FormBody | SmallInputs, key: str, *, time_limit_s: float | None = None
    ) -> Payload:
        """See ``ClientTransport.submit``. A form goes by HTTP."""
        session = self._open_session
        if session is None or isinstance(files, FormBody):
            return await self._http.submit(files, key, time_limit_s=time_limit_s)
        about = request_id() or ""
        return await session.payload(
            lambda number: link.Assign(
                number, key, files.block, list(files.fields), time_limit_s, about
            ),
            ANSWER_TIMEOUT_S,
        )

    async def retrieve(
        self, payload_id: int, key: str, receiver: Receiver
    ) -> Payload | StoredOutput:
        """See ``ClientTransport.retrieve``. By HTTP."""
        return await self._http.retrieve(payload_id, key, receiver)

    async def retrieve_partial(self, payload_id: int, receiver: Receiver) -> StoredOutput:
        """See ``ClientTransport.retrieve_partial``. By HTTP."""
        return await self._http.retrieve_partial(payload_id, receiver)

    def open_partial(self, payload_id: int) -> AbstractAsyncContextManager[OutputStream]:
        """See ``ClientTransport.open_partial``. By HTTP."""
        return self._http.open_partial(payload_id)

    def open_logs(
        self, payload_id: int, stream: str, offset: int, *, follow: bool
    ) -> AbstractAsyncContextManager[OutputStream]:
        """See ``ClientTransport.open_logs``. By HTTP."""
        return self._http.open_logs(payload_id, stream, offset, follow=follow)

    async def kill(self, payload_id: int) -> Payload | None:
        """See ``ClientTransport.kill``."""
        if (session := self._open_session) is None:
            return await self._http.kill(payload_id)
        return await session.payload(lambda number: link.Kill(number, payload_id), ANSWER_TIMEOUT_S)

    async def kill_key(self, key: str) -> Payload:
        """See ``ClientTransport.kill_key``."""
        if (session := self._open_session) is None:
            return await self._http.kill_key(key)
        return await session.payload(lambda number: link.KillKey(number, key), ANSWER_TIMEOUT_S)

    @property
    def can_recall(self) -> bool:
        """See ``ClientTransport.can_recall``."""
        return self._open_session is not None

    async def recall(self, key: str) -> bool:
        """See ``ClientTransport.recall``."""
        session = self._open_session
        return session is not None and await session.recall(key, ANSWER_TIMEOUT_S)

    async def acknowledge(self, payload_ids: Sequence[int]) -> None:
        """See ``ClientTransport.acknowledge``."""
        if (session := self._open_session) is None:
            await self._http.acknowledge(payload_ids)
        else:
            await session.acknowledge(list(payload_ids), ANSWER_TIMEOUT_S)

    async def inventory(self) -> Sequence[InventoryEntry]:
        """See ``ClientTransport.inventory``."""
        if (session := self._open_session) is None:
            return await self._http.inventory()
        return await session.inventory(self._tuning.json_timeout_s)

    async def load(self) -> float:
        """See ``ClientTransport.load``. By HTTP."""
        return await self._http.load()

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[ClientEvent]]:
        """See ``ClientTransport.events``. The link is open within the block."""
        try:
            socket = await self._connection.open_link()
        except LinkNotOffered as error:
            logger.debug("%s", error)
            async with self._http.events() as events:
                yield events
            return
        session = await self._greet(LinkSocket(socket))
        running = asyncio.create_task(
            session.run(self._tuning.event_stream_timeout_s), name=f"link: {self.name}"
        )
        self._session = session
        try:
            async with contextlib.aclosing(session.events()) as events:
                yield events
        finally:
            if self._session is session:
                self._session = None
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    @property
    def _open_session(self) -> LinkSession | None:
        """The session, unless it is broken: then requests go by HTTP until it is open again."""
        session = self._session
        return session if session is not None and session.is_open else None

    async def _greet(self, socket: LinkSocket) -> LinkSession:
        """Exchange the hellos. Raises ``ClientError``."""
        terms = self._terms
        hello = link.ServerHello(
            link.PROTOCOL, __version__, terms.installation, terms.max_result_bytes
        )
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await socket.send_now(link.encode_item(hello))
                answer = link.decode_client_hello(await socket.receive_one())
        except BaseException as error:
            if isinstance(error, link.MalformedItem):
                socket.close(link.CloseCode.MALFORMED, str(error))
            await socket.finish()
            match error:
                case link.MalformedItem():
                    raise ClientFailed(f"{self.name} sent what is {error}") from error
                case LinkBroken():
                    raise AnswerLost(f"{self.name} is disconnected: {error}") from error
                case TimeoutError():
                    raise ClientTimeout(f"{self.name} stopped answering") from error
            raise
        return LinkSession(self.name, socket, answer)
