"""Messages of the link: the stream of small messages between jo-server and one jo-client.

The link is a WebSocket that jo-server opens (``GET /link`` of jo-client). Each of its binary
messages holds a list of items in MessagePack; an item is a list that begins with its kind. The
first message of each side is its hello, alone. docs/link.md describes the items.

A request of the server has a number, which the answer repeats. Numbers are valid for one
connection. What must not happen twice is identified by the key of the attempt, or by the id of the
payload, so any item may be repeated over a later connection.

Later versions append fields to items; a reader ignores fields that it does not know. A kind of item
is sent only to a peer whose hello has a protocol number that includes it.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, TypeAlias, TypeVar

import msgspec

from job_orchestrator.common.errors import DomainError
from job_orchestrator.common.messages.encoding import StoredInteger
from job_orchestrator.common.messages.payloads import InventoryEntry, LoadEvent, RunSeconds
from job_orchestrator.common.protocol.durations import MAX_NUMBER
from job_orchestrator.common.status import PayloadStatus

PROTOCOL = 1
"""Number of the set of items below. Both sides use the lower one of their hellos."""

MAX_MESSAGE_BYTES = 4 << 20
"""Limit of one WebSocket message. A peer that sends a longer one is disconnected."""

BATCH_BYTES = 1 << 20
"""A message is not extended by further items beyond this size."""

MAX_ITEM_BYTES = MAX_MESSAGE_BYTES - BATCH_BYTES
MAX_BATCH = 10_000
"""Items in one message."""

INVENTORY_BATCH = 1000
"""Payloads in one item of an inventory."""

MAX_FIELDS, MAX_FIELD_LENGTH = 100, 1000
"""Fields of one assignment, and characters of a name or value: more than any server sends."""

MAX_KEY_LENGTH = 200
KEY_PATTERN = "[ -~]"
"""Regular expression of a character of a key: printable ASCII."""

MAX_ACKNOWLEDGED = 1000
"""Payloads in one acknowledgement."""

Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
# Printable ASCII, as in a header of HTTP: keys are logged.
Key: TypeAlias = Annotated[
    str, msgspec.Meta(max_length=MAX_KEY_LENGTH, pattern=rf"\A{KEY_PATTERN}+\Z")
]
RequestId: TypeAlias = Annotated[
    str, msgspec.Meta(max_length=MAX_KEY_LENGTH, pattern=rf"\A{KEY_PATTERN}*\Z")
]
Seconds: TypeAlias = Annotated[float, msgspec.Meta(gt=0, lt=MAX_NUMBER)]
FieldText: TypeAlias = Annotated[str, msgspec.Meta(max_length=MAX_FIELD_LENGTH)]
Fields: TypeAlias = Annotated[
    list[tuple[FieldText, FieldText]], msgspec.Meta(max_length=MAX_FIELDS)
]
Time: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1e11)]
"""Seconds since the epoch."""

T = TypeVar("T")


class MalformedItem(DomainError):
    """Bytes that are not a message of the link."""


class CloseCode:
    """Codes with which a side closes the link, apart from those of WebSocket itself."""

    MALFORMED = 4400
    """The peer sent what is not a message of the link."""
    SLOW_READER = 4429
    """The peer did not read for so long that the queue of items for it is full."""


class Refusal(StrEnum):
    """Reason for which a client did not carry out a request."""

    BUSY = "busy"
    """The client accepts nothing now; the request may be repeated later."""
    REFUSED = "refused"
    """Not acceptable in itself, so that a repeat would not help."""
    LOST = "lost"
    """The client has no such payload."""
    GIVEN_BACK = "given-back"
    """The client has given the payload back, and its script never begins."""
    FAILED = "failed"
    """Internal error."""


class ServerHello(msgspec.Struct, array_like=True, frozen=True, tag="hello"):
    """First message of a server.

    ``installation`` identifies its database of jobs: keys of its attempts begin their last part
    with it. Results of at most ``max_result_bytes`` may be in ``Ended``.
    """

    protocol: Number
    version: str
    installation: str
    max_result_bytes: Number


class ClientHello(msgspec.Struct, array_like=True, frozen=True, tag="hello"):
    """First message of a client, with its slots, its present load, and the time of its clock."""

    protocol: Number
    version: str
    load: LoadEvent
    now: Time | None = None


class Assign(msgspec.Struct, array_like=True, frozen=True, tag="assign"):
    """Run the payload of ``key``; ``files`` are as in ``small_files``. Answer: ``PayloadState``.

    ``fields`` are the fields that a form would have. The script may run for ``time_limit_s``.
    ``request_id`` is for the log of the client.
    """

    number: Number
    key: Key
    files: bytes
    fields: Fields = []
    time_limit_s: Seconds | None = None
    request_id: RequestId = ""


class Kill(msgspec.Struct, array_like=True, frozen=True, tag="kill"):
    """End a payload. Answer: ``PayloadState`` when none of its processes runs any more."""

    number: Number
    id: StoredInteger


class KillKey(msgspec.Struct, array_like=True, frozen=True, tag="kill_key"):
    """End the payload that was or will be assigned with ``key``. Answer: ``PayloadState``."""

    number: Number
    key: Key


class Recall(msgspec.Struct, array_like=True, frozen=True, tag="recall"):
    """Take back a payload that has not started: it will never run. Answer: ``Recalled``."""

    number: Number
    key: Key


class Acknowledge(msgspec.Struct, array_like=True, frozen=True, tag="acknowledge"):
    """The results of these payloads are stored and may be removed. Answer: ``Acknowledged``."""

    number: Number
    ids: Annotated[list[StoredInteger], msgspec.Meta(max_length=MAX_ACKNOWLEDGED)]


class ListPayloads(msgspec.Struct, array_like=True, frozen=True, tag="list"):
    """Ask for the inventory. Answer: one or several ``Inventory``."""

    number: Number


class PayloadState(msgspec.Struct, array_like=True, frozen=True, tag="payload"):
    """Answer: the payload, as it was ``at`` this time of the client's clock."""

    number: Number
    id: StoredInteger
    status: PayloadStatus
    exit_code: StoredInteger | None = None
    message: str = ""
    at: Time | None = None


class Recalled(msgspec.Struct, array_like=True, frozen=True, tag="recalled"):
    """Answer: ``ended`` if the payload had not started and never will."""

    number: Number
    ended: bool


class Acknowledged(msgspec.Struct, array_like=True, frozen=True, tag="acknowledged"):
    """Answer: the files of the payloads are removed."""

    number: Number


class Inventory(msgspec.Struct, array_like=True, frozen=True, tag="inventory"):
    """Answer: payloads that the client has. ``last`` is False if another part follows."""

    number: Number
    entries: list[InventoryEntry]
    last: bool


class Refused(msgspec.Struct, array_like=True, frozen=True, tag="refused"):
    """Answer: the request was not carried out, for this ``reason``."""

    number: Number
    reason: Refusal
    message: str = ""


class Started(msgspec.Struct, array_like=True, frozen=True, tag="started"):
    """The script of a payload was started, ``at`` this time of the client's clock."""

    id: StoredInteger
    key: str | None
    at: Time | None = None


class SlotFree(msgspec.Struct, array_like=True, frozen=True, tag="slot_free"):
    """The script of a payload has ended, so that its slot is free; its results are packed.

    ``message`` says so to users.
    """

    id: StoredInteger
    key: str | None
    message: str = ""


class Ended(msgspec.Struct, array_like=True, frozen=True, tag="ended"):
    """A payload has ended; with status Cleaned, it is lost or given back.

    ``results`` is the ZIP if it is small and the key is one of this server; its SHA-256 digest is
    ``sha256``. None: the results are fetched by HTTP, if there are any. ``at`` is by the client's
    clock. ``run_s`` is how many seconds the script ran; older clients don't send it.
    """

    id: StoredInteger
    key: str | None
    status: PayloadStatus
    exit_code: StoredInteger | None = None
    message: str = ""
    results: bytes | None = None
    sha256: bytes | None = None
    at: Time | None = None
    run_s: RunSeconds | None = None


class Load(msgspec.Struct, array_like=True, frozen=True, tag="load"):
    """The load of the client, and the time of its clock.

    It is sent regularly, and when it begins to drain.
    """

    load: LoadEvent
    now: Time | None = None


Request: TypeAlias = Assign | Kill | KillKey | Recall | Acknowledge | ListPayloads
Answer: TypeAlias = PayloadState | Recalled | Acknowledged | Inventory | Refused
Report: TypeAlias = Started | SlotFree | Ended | Load
Item: TypeAlias = Request | Answer | Report

_encoder = msgspec.msgpack.Encoder()
_server_hello = msgspec.msgpack.Decoder(list[ServerHello])
_client_hello = msgspec.msgpack.Decoder(list[ClientHello])
_requests = msgspec.msgpack.Decoder(
    Annotated[list[Request], msgspec.Meta(min_length=1, max_length=MAX_BATCH)]
)
_from_client = msgspec.msgpack.Decoder(
    Annotated[list[Answer | Report], msgspec.Meta(min_length=1, max_length=MAX_BATCH)]
)


def encode_item(item: Item | ServerHello | ClientHello) -> bytes:
    """Encode one item."""
    return _encoder.encode(item)


def join_items(items: Sequence[bytes]) -> bytes:
    """Return the message that holds these encoded items; there are at most ``MAX_BATCH``."""
    return b"".join([b"\xdc", len(items).to_bytes(2, "big"), *items])


def decode_server_hello(message: bytes) -> ServerHello:
    """Decode the first message of a server. Raises ``MalformedItem``."""
    return _only(_decode(_server_hello, message))


def decode_client_hello(message: bytes) -> ClientHello:
    """Decode the first message of a client. Raises ``MalformedItem``."""
    return _only(_decode(_client_hello, message))


def decode_requests(message: bytes) -> list[Request]:
    """Decode a message of a server, in the order of its items. Raises ``MalformedItem``."""
    return _decode(_requests, message)


def decode_from_client(message: bytes) -> list[Answer | Report]:
    """Decode a message of a client, in the order of its items. Raises ``MalformedItem``."""
    return _decode(_from_client, message)


def _decode(decoder: "msgspec.msgpack.Decoder[list[T]]", message: bytes) -> list[T]:
    try:
        return decoder.decode(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedItem(f"not a message of the link: {error}") from error


def _only(hellos: list[T]) -> T:
    if len(hellos) != 1:
        raise MalformedItem("the first message of a link is one hello")
    return hellos[0]
