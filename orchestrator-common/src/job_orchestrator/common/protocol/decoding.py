"""Reading of the messages of clients, which are not trusted: their texts are bounded."""

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from job_orchestrator.common.errors import DomainError
from job_orchestrator.common.messages.payloads import (
    InventoryEntry,
    LoadEvent,
    Payload,
    PayloadEvent,
)

T = TypeVar("T")

MAX_TEXT_BYTES = 1 << 16
"""Limit for a text of a client. The server stores it, lists it and pushes it to all subscribers."""

MAX_VERSION_BYTES = 100
MAX_WARNINGS = 10
CUT_OFF = "… (cut off)"


class MalformedMessage(DomainError):
    """A body that is not the message that it should be."""


def decode_payload(body: bytes) -> Payload:
    """Read a payload, with a long message cut off. Raises ``MalformedMessage``."""
    payload = _decode(_payload_decoder, body, "payload")
    return msgspec.structs.replace(payload, message=shortened(payload.message or ""))


def decode_inventory(body: bytes) -> Sequence[InventoryEntry]:
    """Read the payloads that a client has. Raises ``MalformedMessage``."""
    return _decode(_inventory_decoder, body, "list of payloads")


def decode_payload_event(body: str) -> PayloadEvent:
    """Read the data of a ``payload`` event, with a long message cut off.

    Raises ``MalformedMessage``.
    """
    event = _decode(_payload_event_decoder, body, "payload event")
    return msgspec.structs.replace(event, message=shortened(event.message))


def decode_load_event(body: str) -> LoadEvent:
    """Read the data of a ``load`` event, with long texts cut off.

    Raises ``MalformedMessage``.
    """
    load = _decode(_load_event_decoder, body, "load event")
    return msgspec.structs.replace(
        load,
        version=shortened(load.version, MAX_VERSION_BYTES),
        problem=shortened(load.problem),
        warnings=tuple(shortened(text) for text in load.warnings[:MAX_WARNINGS]),
    )


def shortened(text: str, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Return ``text``, cut off with a mark at its end if its UTF-8 exceeds ``max_bytes``."""
    if len(text) * 4 <= max_bytes:
        return text
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= max_bytes:
        return text
    kept = max_bytes - len(CUT_OFF.encode())
    return encoded[:kept].decode("utf-8", "ignore") + CUT_OFF


def _decode(decoder: "msgspec.json.Decoder[T]", body: bytes | str, what: str) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedMessage(f"not a {what}: {error}") from error


_payload_decoder = msgspec.json.Decoder(Payload)
_inventory_decoder = msgspec.json.Decoder(list[InventoryEntry])
_payload_event_decoder = msgspec.json.Decoder(PayloadEvent)
_load_event_decoder = msgspec.json.Decoder(LoadEvent)
