"""Server-sent events, written and read."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job_orchestrator.common.protocol.sse import Event, StreamBroken, encode_event, read_events


def pieces_of(body: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    return [body[a:b] for a, b in pairwise(places)]


events = st.lists(
    st.tuples(
        st.text(st.characters(codec="ascii", exclude_characters="\r\n:"), min_size=1, max_size=8),
        st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=30),
        st.none() | st.integers(0, 2**63),
    ),
    max_size=5,
)


@given(events, st.lists(st.integers(0, 500), max_size=8))
def test_events_arrive_unchanged_however_they_are_cut(
    sent: list[tuple[str, str, int | None]], cuts: list[int]
) -> None:
    encoded = (encode_event(kind.strip() or "x", data.encode(), id) for kind, data, id in sent)
    body = b": hello\n\n".join([b"", *encoded])
    last_ids: list[int | None] = []
    for _, _, event_id in sent:
        last_ids.append(event_id if event_id is not None else (last_ids or [None])[-1])

    async def read() -> list[Event]:
        async def chunks() -> AsyncIterator[bytes]:
            for piece in pieces_of(body, cuts):
                yield piece

        return [event async for event in read_events(chunks())]

    assert asyncio.run(read()) == [
        Event(kind.strip() or "x", data, "" if last_id is None else str(last_id))
        for (kind, data, _), last_id in zip(sent, last_ids, strict=True)
    ]


async def test_endless_event_breaks_the_stream() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 100_000

    with pytest.raises(StreamBroken):
        async for _ in read_events(chunks()):
            pass
