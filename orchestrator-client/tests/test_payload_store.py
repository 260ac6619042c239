"""Store of the payloads: one compare-and-set for each change, and allowed changes only."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from job_orchestrator.client.errors import PayloadNotFound
from job_orchestrator.client.model import PayloadRow
from job_orchestrator.client.payloads.store import PayloadStore, open_payloads
from job_orchestrator.common.status import (
    FINAL_PAYLOAD,
    PAYLOAD_TRANSITIONS,
    PayloadStatus,
    TransitionRefused,
)


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(clock: Clock) -> AsyncIterator[PayloadStore]:
    async with open_payloads(clock) as store:
        yield store


async def ended(store: PayloadStore, payload: int, status: PayloadStatus) -> PayloadRow:
    await store.add(payload, f"u{payload}", None)
    await store.start(1)
    return await store.finish(payload, status, "because", 1)


async def test_oldest_prepared_payload_is_started_first_and_once(store: PayloadStore) -> None:
    for payload in (5, 3, 4):
        await store.add(payload, f"u{payload}", None)
    started = await asyncio.gather(*(store.start(2) for _ in range(3)))
    assert [[row.id for row in rows] for rows in started] == [[3, 4], [5], []]


async def test_same_key_is_added_once(store: PayloadStore) -> None:
    rows = await asyncio.gather(*(store.add(n, f"u{n}", "key") for n in range(1, 5)))
    (row,) = [row for row in rows if row]
    assert await store.by_key("key") == row
    assert await store.by_key("other") is None
    # Payloads without a key are always different.
    assert await store.add(8, "u8", None)
    assert await store.add(9, "u9", None)


@pytest.mark.parametrize("status", sorted(FINAL_PAYLOAD))
async def test_final_payload_can_only_become_cleaned(
    store: PayloadStore, status: PayloadStatus
) -> None:
    row = await ended(store, 1, status)
    for other in sorted(set(PayloadStatus) - {PayloadStatus.CLEANED}):
        with pytest.raises(TransitionRefused) as refused:
            await store.finish(1, other, "too late", 0)
        assert refused.value.current is status
    assert await store.request_kill(1) is None
    assert await store.get(1) == row
    cleaned = await store.finish(1, PayloadStatus.CLEANED, "gone")
    assert (cleaned.status, cleaned.exit_code) == (PayloadStatus.CLEANED, 1)


async def test_cancelled_payload_is_not_started(store: PayloadStore) -> None:
    await store.add(1, "u1", None)
    row = await store.request_kill(1)
    assert row is not None
    assert (row.status, row.killed) == (PayloadStatus.KILLED, True)
    assert await store.start(1) == []


async def test_dropped_payload_is_not_started(store: PayloadStore) -> None:
    await store.add(1, "u1", None)
    await store.drop(1)
    assert await store.start(1) == []
    await store.add(2, "u2", None)
    await store.start(1)
    await store.drop(2)
    assert (await store.get(2)).status is PayloadStatus.RUNNING


async def test_unknown_payload_raises(store: PayloadStore) -> None:
    with pytest.raises(PayloadNotFound, match="Payload 7 not found"):
        await store.get(7)
    with pytest.raises(PayloadNotFound):
        await store.finish(7, PayloadStatus.FAILED, "")


async def test_trap_39_age_counts_from_the_end(store: PayloadStore, clock: Clock) -> None:
    await store.add(1, "u1", None)
    await store.start(1)
    clock.now += 1_000_000
    assert await store.ended_before(10, 100) == []
    await store.finish(1, PayloadStatus.COMPLETED, "", 0)
    clock.now += 9
    assert await store.ended_before(10, 100) == []
    clock.now += 2
    assert [row.id for row in await store.ended_before(10, 100)] == [1]
    await store.finish(1, PayloadStatus.CLEANED, "")
    assert await store.ended_before(10, 100) == []


async def test_only_cleaned_rows_are_deleted(store: PayloadStore, clock: Clock) -> None:
    await ended(store, 1, PayloadStatus.COMPLETED)
    await ended(store, 2, PayloadStatus.FAILED)
    await store.finish(1, PayloadStatus.CLEANED, "")
    await store.delete_cleaned(60)
    assert (await store.get(1)).status is PayloadStatus.CLEANED
    clock.now += 61
    await store.delete_cleaned(60)
    with pytest.raises(PayloadNotFound):
        await store.get(1)
    assert (await store.get(2)).status is PayloadStatus.FAILED


operations = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 4), st.none()),
        st.tuples(st.just("start"), st.just(0), st.none()),
        st.tuples(st.just("kill"), st.integers(1, 4), st.none()),
        st.tuples(st.just("finish"), st.integers(1, 4), st.sampled_from(sorted(PayloadStatus))),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(operations)
def test_any_sequence_of_calls_makes_only_allowed_transitions(
    calls: list[tuple[str, int, PayloadStatus | None]],
) -> None:
    async def play() -> None:
        notified: dict[int, list[PayloadStatus]] = {}
        async with open_payloads() as store:
            store.subscribe(lambda row: notified.setdefault(row.id, []).append(row.status))
            for call, payload, status in calls:
                try:
                    if call == "add" and payload not in notified:
                        await store.add(payload, f"u{payload}", None)
                    elif call == "start":
                        await store.start(1)
                    elif call == "kill":
                        await store.request_kill(payload)
                    elif status is not None:
                        await store.finish(payload, status, "")
                except (TransitionRefused, PayloadNotFound):
                    continue
            states = {payload: (await store.get(payload)).status for payload in notified}
            running, waiting = await store.counts()
        for payload, seen in notified.items():
            assert seen[0] is PayloadStatus.PREPARED
            for before, after in itertools.pairwise(seen):
                # Running twice: a request to terminate a running payload is notified too.
                assert after in PAYLOAD_TRANSITIONS[before] or (
                    before is after is PayloadStatus.RUNNING
                )
            assert seen[-1] is states[payload]
        assert running == list(states.values()).count(PayloadStatus.RUNNING)
        assert waiting == list(states.values()).count(PayloadStatus.PREPARED)

    asyncio.run(play())


async def test_all_kept_payloads_are_listed_however_many_they_are(store: PayloadStore) -> None:
    for number in range(1, 1204):
        await store.add(number, f"u{number}", None)
    assert [row.id for row in await store.kept()] == list(range(1, 1204))
