"""JSON bodies on the wire: one struct for each, used by jo-server, jo-client and the SDK.

Fields are only ever added: web apps, servers and clients of the documented contract read the same
bodies. ``encode`` writes every field, in the order of its struct. Decoding is lenient: unknown
fields are ignored, and a missing field gets its default, so that messages of older versions can be
read. Fields that end in ``_s`` are seconds. Times are aware UTC datetimes.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Self, TypeVar

import msgspec

T = TypeVar("T")


StoredInteger = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""An integer that fits into a column of a database: 64 bits, signed."""


class WireTime(datetime):
    """A time that ``encode`` writes as ISO 8601 in UTC, always with milliseconds.

    msgspec writes a plain ``datetime`` with six digits, or without a fraction where that is zero.
    It hands subclasses of ``datetime`` to the hook of its encoder, which keeps the format.
    """

    @classmethod
    def at(cls, seconds: float) -> Self:
        """Return the time that is ``seconds`` after the epoch."""
        return cls.fromtimestamp(seconds, UTC)


def encode(message: msgspec.Struct | Sequence[msgspec.Struct]) -> bytes:
    """Return a message, or a list of messages, as JSON in UTF-8. Times must be ``WireTime``."""
    return _encoder.encode(message)


def _encode_time(value: Any) -> str:
    if not isinstance(value, WireTime):
        raise NotImplementedError(f"{type(value).__name__} has no form in JSON")
    return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")


_encoder = msgspec.json.Encoder(enc_hook=_encode_time)
