"""The contract between the server and one client, independent of the protocol below it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from job_orchestrator.common.messages.payloads import (
    InventoryEntry,
    LoadEvent,
    Payload,
    PayloadEvent,
)
from job_orchestrator.common.protocol.multipart_writer import FormBody, FormFile
from job_orchestrator.common.protocol.small_files import decode_files
from job_orchestrator.server.errors import ClientError
from job_orchestrator.server.model import StoredOutput

BLOCK_BYTES = 1 << 20
"""Receivers get results in blocks of at least this size; only the last one may be smaller."""


class EventsNotOffered(ClientError):
    """The client has no event stream (an older version): it must be polled."""


class InventoryNotOffered(ClientError):
    """The client can't list its payloads (an older version)."""


@dataclass(frozen=True)
class SmallInputs:
    """Inputs of a small job: its files as one block (see ``small_files``), and form fields."""

    block: bytes
    fields: Sequence[tuple[str, str]] = ()

    def form(self) -> FormBody:
        """Return the inputs as a form."""
        files = [FormFile(f.name, f.content, len(f.content)) for f in decode_files(self.block)]
        body = FormBody(files, self.fields)
        body.load_if_small()
        return body


class Receiver(Protocol):
    """Destination of a ZIP that a client sends."""

    async def receive(
        self, blocks: AsyncIterator[bytes], sha256: bytes | None = None
    ) -> StoredOutput:
        """Keep all of ``blocks``. Fails if ``blocks`` raises, or if ``sha256`` is another digest.

        ``sha256`` is None if the client has sent no digest (older versions).
        """


@dataclass(frozen=True)
class OutputStream:
    """Output of a payload on its way to a user. Size in bytes and digest: None if not known."""

    blocks: AsyncIterator[bytes]
    size: int | None = None
    sha256: bytes | None = None


@dataclass(frozen=True)
class EndedPayload:
    """End of a payload, with its results as a ZIP. ``key`` is that of its attempt.

    ``sha256`` is the digest of the results at the client, None if the client has sent none.
    """

    end: PayloadEvent
    key: str
    results: bytes
    sha256: bytes | None


ClientEvent: TypeAlias = PayloadEvent | EndedPayload | LoadEvent
"""Report that a client sends by itself."""


class ClientTransport(Protocol):
    """Carries the server's requests to one client.

    Every failure is a ``ClientError``. Its class says what is known about the request:
    ``ClientUnreachable`` (not sent), ``AnswerLost`` (may have been carried out), ``ClientBusy``,
    ``ClientRefused``, ``ClientFailed``, and ``PayloadLost`` if the client has no such payload.
    Messages of errors name the client. All operations may run concurrently.

    Streams are context managers: a failure while reading is a ``ClientError`` when it leaves the
    ``async with`` block, not necessarily inside it.
    """

    @property
    def name(self) -> str:
        """The name that identifies the client, also after a restart of either side."""

    async def submit(
        self, files: FormBody | SmallInputs, key: str, *, time_limit_s: float | None = None
    ) -> Payload:
        """Send the files of a job. A repeat with the same ``key`` returns the same payload.

        The client ends a script that runs for longer than ``time_limit_s`` (older versions don't).
        Raises ``AnswerLost`` if the answer is lost or invalid: the client may have the job.
        """

    async def retrieve(
        self, payload_id: int, key: str, receiver: Receiver
    ) -> Payload | StoredOutput:
        """Fetch the results of a payload.

        Returns what ``receiver`` has stored, or the payload if it has no results (yet). Raises
        ``PayloadLost`` also if the payload was submitted with another key.
        """

    async def retrieve_partial(self, payload_id: int, receiver: Receiver) -> StoredOutput:
        """Fetch the output that a payload has so far, in any state."""

    def open_partial(self, payload_id: int) -> AbstractAsyncContextManager[OutputStream]:
        """Stream the output that a payload has so far to a user, as a ZIP."""

    def open_logs(
        self, payload_id: int, stream: str, offset: int, *, follow: bool
    ) -> AbstractAsyncContextManager[OutputStream]:
        """Stream what a script writes to a user, from byte ``offset`` on.

        With ``follow`` the stream goes on until the payload has ended; it raises ``ClientTimeout``
        if nothing arrives for a while.
        """

    async def kill(self, payload_id: int) -> Payload | None:
        """End a payload. On return none of its processes runs.

        Returns the payload, unchanged if it had already ended; None if the client does not report
        it (older versions).
        """

    async def kill_key(self, key: str) -> Payload:
        """End the payload that was or will be submitted with ``key``, so that it never runs again.

        Raises ``PayloadLost`` if the client does not know this request (older versions).
        """

    @property
    def can_recall(self) -> bool:
        """True if the client returns jobs that it has not started (older versions don't)."""

    async def recall(self, key: str) -> bool:
        """Take back the payload of ``key`` if it has not started: it will never run.

        Returns False if it has started or ended, or if the client can't return jobs. Raises
        ``PayloadLost`` if the client has no such payload.
        """

    async def acknowledge(self, payload_ids: Sequence[int]) -> None:
        """Confirm that the results of these payloads are stored; the client may remove them."""

    async def inventory(self) -> Sequence[InventoryEntry]:
        """Return all payloads that the client has, those of other servers included.

        Raises ``InventoryNotOffered`` if the client can't list them (older versions).
        """

    async def load(self) -> float:
        """Return the CPU use of the client's machine, in per cent."""

    def events(
        self,
    ) -> AbstractAsyncContextManager[AsyncIterator[ClientEvent]]:
        """Open the stream of events, and connect to the client if the transport has a connection.

        It fails when it breaks or stays silent for too long. Raises ``EventsNotOffered`` if the
        client has none.
        """

    async def close(self) -> None:
        """Close all connections."""
