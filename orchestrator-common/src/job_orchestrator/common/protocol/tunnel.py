"""Messages of the tunnel: a WebSocket that a client opens, and on which its server opens streams.

A text message is a JSON object: the first one of each side, and the client's farewell. A binary
message is a frame: its kind, the number of its stream, and its content.
"""

import struct
from enum import IntEnum
from typing import TypeAlias

import msgspec

from job_orchestrator.common.errors import DomainError

SUBPROTOCOL = "jo-tunnel.1"
"""Name of the WebSocket's protocol. A change that older versions can't read gets another name."""

PATH = "/connect"
"""Route of jo-server."""

BLOCK_BYTES = 256 << 10
"""Limit of the content of a frame."""

WINDOW_BYTES = 1 << 20
"""Bytes of one stream that may be on their way, per direction; the receiver grants more."""

MAX_MESSAGE_BYTES = BLOCK_BYTES + 1024

MAX_STREAMS = 1000
"""Open streams of one tunnel. The server has fewer connections to a client (see its sessions)."""

HEARTBEAT_S = 20.0
"""A ping is sent after so long without a message; proxies close silent connections after 60 s."""

MAX_HELLO_BYTES = 16 << 10
MAX_NAME = 63

_HEAD = struct.Struct(">BI")
_COUNT = struct.Struct(">I")


class Frame(IntEnum):
    """Kind of a frame.

    ``CREDIT`` has the number of bytes that the receiver of a stream has processed. ``CLOSE`` ends a
    stream in order, ``RESET`` at any time. ``PING`` is answered with ``PONG``, on stream 0.
    """

    OPEN = 0
    DATA = 1
    CREDIT = 2
    CLOSE = 3
    RESET = 4
    PING = 5
    PONG = 6


class CloseCode(IntEnum):
    """Reason why the server ends a tunnel, besides those of every WebSocket.

    ``TOKEN``: the token was revoked or has expired. ``SERVICE``: the client may not serve a service
    that it asks for. ``REPLACED``: the same client has another connection. ``NAME_IN_USE``: another
    client has this name. ``TOO_OLD``: the client speaks another version. ``FORGOTTEN``: an
    administrator has removed the client.
    """

    MALFORMED = 4400
    TOKEN = 4401
    SERVICE = 4403
    REPLACED = 4408
    NAME_IN_USE = 4409
    TOO_OLD = 4410
    FORGOTTEN = 4411


class MalformedMessage(DomainError):
    """A message that is not of this protocol, or breaks one of its limits."""


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    """First message of a client. Without ``services`` it asks for all that its token allows.

    ``identity`` is random and stays the same as long as the client keeps its data folder,
    ``instance`` is random for each start.
    """

    name: str
    identity: str
    instance: str
    services: tuple[str, ...] = ()
    version: str = ""


class Welcome(msgspec.Struct, frozen=True, kw_only=True, tag="welcome"):
    """Answer to the hello: the services whose jobs the client will get."""

    services: tuple[str, ...]
    version: str = ""


class Refusal(msgspec.Struct, frozen=True, tag="refusal"):
    """Reason for which the server ends the tunnel, in full: that of a close is limited."""

    message: str


class Farewell(msgspec.Struct, frozen=True, tag="bye"):
    """Last message of a client that ends in order: it does not come back."""


Text: TypeAlias = Hello | Welcome | Refusal | Farewell

_decoder = msgspec.json.Decoder(Text)


def encode_text(message: Text) -> str:
    """Encode a text message."""
    return msgspec.json.encode(message).decode()


def decode_text(text: str) -> Text:
    """Decode a text message. Raises ``MalformedMessage``."""
    if len(text) > MAX_HELLO_BYTES:
        raise MalformedMessage("a text message is too long")
    try:
        message: Text = _decoder.decode(text)
    except msgspec.MsgspecError as error:
        raise MalformedMessage(f"a text message is not of the tunnel: {error}") from error
    return message


def encode_frame(kind: Frame, stream: int, content: bytes = b"") -> bytes:
    """Encode a frame."""
    return _HEAD.pack(kind, stream) + content


def encode_credit(stream: int, count: int) -> bytes:
    """Encode a ``CREDIT``."""
    return encode_frame(Frame.CREDIT, stream, _COUNT.pack(count))


def decode_frame(message: bytes) -> tuple[Frame, int, bytes]:
    """Return kind, stream and content of a frame. Raises ``MalformedMessage``."""
    try:
        kind, stream = _HEAD.unpack_from(message)
        return Frame(kind), stream, message[_HEAD.size :]
    except (struct.error, ValueError) as error:
        raise MalformedMessage("a frame has no valid head") from error


def decode_count(content: bytes) -> int:
    """Return the number of bytes in a ``CREDIT``. Raises ``MalformedMessage``."""
    try:
        (count,) = _COUNT.unpack(content)
    except struct.error as error:
        raise MalformedMessage("a credit is not a number") from error
    return int(count)
