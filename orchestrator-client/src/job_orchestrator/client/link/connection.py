"""One link to a server: receives requests, sends answers and reports."""

import logging
from collections.abc import Callable

from job_orchestrator.client import __version__
from job_orchestrator.client.link.requests import LinkRequests
from job_orchestrator.client.model import PayloadRow
from job_orchestrator.client.payloads.events import EventHub
from job_orchestrator.common.messages.payloads import LoadEvent
from job_orchestrator.common.protocol import link
from job_orchestrator.common.runtime.clock import steady_time
from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.status import PayloadStatus
from job_orchestrator.common.web.link_socket import LinkBroken, LinkSocket, QueueFull

logger = logging.getLogger(__name__)

HOLD_S = 0.02
"""Time for which it may be held back that a payload was accepted, or that it was started.

So both are in the message of the end of a short script. Each message costs both sides as much as
all else that they do with what is in it.
"""

SmallResults = Callable[[str], bytes | None]
"""Maps the uuid of a payload to its results, if they are small."""


class LinkConnection:
    """A link that is open. A follower of the event hub.

    A server whose queue is full is disconnected: it connects again and asks for what it missed.
    """

    def __init__(
        self,
        socket: LinkSocket,
        hello: link.ServerHello,
        requests: LinkRequests,
        small_results: SmallResults,
    ) -> None:
        self._socket = socket
        self._hello = hello
        self._requests = requests
        self._small_results = small_results
        self._open = True

    async def run(self) -> None:
        """Answer and report until the link breaks."""
        try:
            await self._socket.run(self._received)
        except (LinkBroken, link.MalformedItem) as error:
            logger.info("The link to a server ended: %s", error)
        finally:
            self._open = False

    def on_payload_changed(self, row: PayloadRow) -> None:
        """Report the state of a payload. Prepared is not reported: the answer says it."""
        match row.reported_status:
            case PayloadStatus.PREPARED:
                pass
            case PayloadStatus.RUNNING if row.packing:
                self._send(link.SlotFree(row.id, row.key, row.message))
            case PayloadStatus.RUNNING:
                self._send(link.Started(row.id, row.key, steady_time()), hold_s=HOLD_S)
            case _:
                self._report_end(row)

    def on_load(self, load: LoadEvent) -> None:
        """Report the load."""
        self._send(link.Load(load, steady_time()))

    def end(self) -> None:
        """Close the link: the client stops."""
        self._socket.end()

    def _report_end(self, row: PayloadRow) -> None:
        results = None
        if row.results_sha256 is not None and self._has_made(row.key):
            results = self._small_results(row.uuid)
            if results is not None and len(results) > self._hello.max_result_bytes:
                results = None
        self._send(
            link.Ended(
                row.id,
                row.key,
                row.status,
                row.exit_code,
                row.message,
                results,
                None if results is None else row.results_sha256,
                row.ended_at,
                row.run_s,
            )
        )
        reach(Point.CLIENT_END_SENT)

    def _has_made(self, key: str | None) -> bool:
        """Return whether the server has made ``key``: only then does it get the results."""
        nonce = (key or "").rpartition(".")[2]
        return nonce.startswith(f"{self._hello.installation}-")

    def _received(self, message: bytes) -> None:
        for request in link.decode_requests(message):
            self._requests.begin(request, self._answer)

    def _answer(self, answer: link.Answer) -> None:
        is_accepted = isinstance(answer, link.PayloadState) and not answer.status.has_ended
        self._send(answer, hold_s=HOLD_S if is_accepted else 0.0)

    def _send(self, item: link.Answer | link.Report, *, hold_s: float = 0.0) -> None:
        if not self._open:
            return
        try:
            self._socket.put(link.encode_item(item), hold_s=hold_s)
        except QueueFull as error:
            self._open = False
            self._socket.break_off(link.CloseCode.SLOW_READER, str(error))


class LinkServer:
    """Serves the links of all servers. ``small_results`` finds the results of a payload."""

    def __init__(self, hub: EventHub, requests: LinkRequests, small_results: SmallResults) -> None:
        self._hub = hub
        self._requests = requests
        self._small_results = small_results

    async def serve(self, socket: LinkSocket) -> None:
        """Exchange the hellos, and serve a link until it breaks."""
        try:
            hello = link.decode_server_hello(await socket.receive_one())
            now = steady_time()
            answer = link.ClientHello(link.PROTOCOL, __version__, self._hub.load, now)
            await socket.send_now(link.encode_item(answer))
        except (link.MalformedItem, LinkBroken) as error:
            logger.info("A link was not opened: %s", error)
            if isinstance(error, link.MalformedItem):
                socket.close(link.CloseCode.MALFORMED, str(error))
            await socket.finish()
            return
        connection = LinkConnection(socket, hello, self._requests, self._small_results)
        with self._hub.followed_by(connection):
            await connection.run()
