"""Server-sent events, both ends (https://html.spec.whatwg.org/#server-sent-events)."""

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

from job_orchestrator.common.errors import DomainError

CONTENT_TYPE = "text/event-stream"
KEEP_ALIVE = b": keep-alive\n\n"
"""A comment. Readers ignore it; it shows both ends that the connection works."""

MAX_EVENT_BYTES = 1 << 20


class StreamBroken(DomainError):
    """The peer sent data that can't be part of an event stream."""


@dataclass(frozen=True)
class Event:
    """One event: its kind (``message`` unless the stream names one) and its data.

    ``id`` is that of the last event that had one; it resumes the stream after this event.
    """

    kind: str
    data: str
    id: str = ""


def encode_event(kind: str, data: bytes, event_id: int | None = None) -> bytes:
    """Encode an event with one line of ``data`` (JSON holds no line breaks)."""
    head = b"" if event_id is None else b"id: %d\n" % event_id
    return b"%bevent: %b\ndata: %b\n\n" % (head, kind.encode(), data)


async def read_events(chunks: AsyncIterable[bytes]) -> AsyncIterator[Event]:
    """Yield the events of a stream as they arrive, for any division into chunks.

    An event that the end of the stream cuts off is dropped, as the standard requires. Raises
    ``StreamBroken`` for an event larger than ``MAX_EVENT_BYTES``.
    """
    kind, data, size = "", [], 0  # type: tuple[str, list[str], int]
    last_id = ""
    async for line in _lines(chunks):
        if not line:
            if data:
                yield Event(kind or "message", "\n".join(data), last_id)
            kind, data, size = "", [], 0
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        size += len(line)
        if size > MAX_EVENT_BYTES:
            raise StreamBroken("event too large")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id" and "\0" not in value:
            last_id = value


async def _lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[str]:
    """Yield lines without their end: LF or CR LF. A lone CR, which no known peer sends, is kept."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode("utf-8", "replace")
        if len(rest) > MAX_EVENT_BYTES:
            raise StreamBroken("line too long")
