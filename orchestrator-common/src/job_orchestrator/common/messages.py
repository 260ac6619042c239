"""The messages on the wire, exact to the field.

Fields are only ever added: web apps, servers and clients of the system that this contract comes
from read the same bodies. Decoding is lenient (unknown fields are ignored, ours may be missing),
encoding always gives every field.
"""

from typing import Annotated, Any, TypeVar

import msgspec

from job_orchestrator.common.errors import DomainError
from job_orchestrator.common.status import JobStatus, PayloadStatus

T = TypeVar("T")

Kept = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""A number that a database can keep."""


MAX_TEXT_BYTES = 1 << 16
"""Of a text that a client tells: it is stored, listed and pushed to everybody who looks."""

MAX_VERSION_BYTES = 100
CUT_OFF = "… (cut off)"


class MalformedMessage(DomainError):
    """The peer answered with something that is not the message it should be."""


class JobAnswer(msgspec.Struct, frozen=True):
    """What every JSON answer about a job holds, errors included (``id`` 0: no job)."""

    id: int
    status: JobStatus
    message: str


class JobError(JobAnswer, frozen=True, omit_defaults=True):
    """An error that programs tell by its ``code`` from others of the same HTTP status."""

    code: str = ""


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job as web apps see it, in lists, events and callbacks.

    Times are ISO 8601 in UTC. ``started_at`` is when it ran first, ``client`` the upload URL of the
    client that has it.
    """

    id: int
    user_id: int
    service: str
    status: JobStatus
    message: str
    name: str
    tag: str
    priority: int
    attempt: int
    exit_code: int | None
    client: str | None
    time_limit_s: float | None
    created_at: str
    started_at: str | None
    ended_at: str | None
    has_output: bool
    output_bytes: int | None


class Payload(msgspec.Struct, frozen=True):
    """A payload as a client tells of it.

    Only ``id`` and ``status`` are required when reading: older clients leave out ``exit_code`` and
    ``message``, and echo the uploaded bytes in ``input``. When writing, the first six are always
    there, ``pid`` as an integer (0: no process), because older servers refuse a payload without
    them.
    """

    id: Kept
    status: PayloadStatus
    input: Any = msgspec.field(default_factory=dict)
    loc: str = ""
    pid: int | None = 0
    killed: bool = False
    exit_code: Kept | None = None
    message: str | None = ""


class ErrorPayload(msgspec.Struct, frozen=True):
    """The body of a client's error: shaped like a payload with id 0, so that any server reads it.

    ``status`` is ``Unknown``, which no payload ever is; ``code`` is as in ``JobError``.
    """

    message: str
    id: int = 0
    status: str = "Unknown"
    input: dict[str, Any] = msgspec.field(default_factory=dict)
    loc: str = ""
    pid: int = 0
    killed: bool = False
    exit_code: int | None = None
    code: str = ""


class PayloadEvent(msgspec.Struct, frozen=True):
    """``event: payload`` of a client's event stream: a payload has just got this state."""

    id: Kept
    status: PayloadStatus
    exit_code: Kept | None = None
    message: str = ""


class LoadEvent(msgspec.Struct, frozen=True):
    """``event: load`` of a client's event stream.

    ``cpu`` and ``memory`` are per cent of the machine (0-100), ``slots`` how many payloads may run
    at once, ``running`` how many do, ``waiting`` how many are Prepared. ``draining``: it stops, and
    takes no new payloads. ``version`` is that of jo-client.
    """

    cpu: float
    memory: float
    slots: int
    running: int
    waiting: int
    draining: bool = False
    version: str = ""


_payload_decoder = msgspec.json.Decoder(Payload)
_payload_event_decoder = msgspec.json.Decoder(PayloadEvent)
_load_event_decoder = msgspec.json.Decoder(LoadEvent)


def decode_payload(body: bytes) -> Payload:
    """Read a payload; of a long message only the beginning. Raises ``MalformedMessage``."""
    payload = _decode(_payload_decoder, body, "payload")
    shown = shortened(payload.message or "")
    if shown == payload.message:
        return payload
    return msgspec.structs.replace(payload, message=shown)


def decode_payload_event(body: str) -> PayloadEvent:
    """Read the data of a ``payload`` event; of a long message only the beginning.

    Raises ``MalformedMessage``.
    """
    event = _decode(_payload_event_decoder, body, "payload event")
    shown = shortened(event.message)
    return event if shown == event.message else msgspec.structs.replace(event, message=shown)


def decode_load_event(body: str) -> LoadEvent:
    """Read the data of a ``load`` event; of a long version only the beginning.

    Raises ``MalformedMessage``.
    """
    load = _decode(_load_event_decoder, body, "load event")
    shown = shortened(load.version, MAX_VERSION_BYTES)
    return load if shown == load.version else msgspec.structs.replace(load, version=shown)


def shortened(text: str, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """``text``, or what ``max_bytes`` of UTF-8 hold of it, with a mark at its end."""
    if len(text) * 4 <= max_bytes:
        return text
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= max_bytes:
        return text
    kept = max_bytes - len(CUT_OFF.encode())
    return encoded[:kept].decode("utf-8", "ignore") + CUT_OFF


def encode(message: msgspec.Struct) -> bytes:
    """JSON of a message, UTF-8."""
    return msgspec.json.encode(message)


def _decode(decoder: "msgspec.json.Decoder[T]", body: bytes | str, what: str) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedMessage(f"not a {what}: {error}") from error
