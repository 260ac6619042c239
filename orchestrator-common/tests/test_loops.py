"""Background loops and owned tasks."""

import asyncio

import pytest

from job_orchestrator.common.runtime.loops import Loop, TaskOwner


async def test_wake_during_a_pass_leads_to_another_pass() -> None:
    passes = asyncio.Queue[int]()
    go_on = asyncio.Event()

    async def run_pass() -> None:
        passes.put_nowait(1)
        await go_on.wait()

    loop = Loop("test", run_pass, interval_s=3600)
    loop.start()
    async with asyncio.timeout(60):
        await passes.get()
        loop.wake()
        go_on.set()
        await passes.get()
    assert loop.alive
    await loop.stop()
    assert not loop.alive
    await loop.stop()


async def test_failing_pass_is_logged_and_retried(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recovered = asyncio.Event()
    outcomes = iter([ValueError("no"), ValueError("no"), None])

    async def run_pass() -> None:
        error = next(outcomes, None)
        if error is not None:
            raise error
        recovered.set()

    loop = Loop("test", run_pass, interval_s=0.001)
    loop.start()
    async with asyncio.timeout(60):
        await recovered.wait()
    await loop.stop()
    assert loop.failures == 0
    assert [r.getMessage() for r in caplog.records].count(
        "test: pass failed, next try in 0.0 s"
    ) == 2


async def test_stop_cancels_a_pass_that_exceeds_its_grace_time() -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def run_pass() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    loop = Loop("test", run_pass, interval_s=1)
    loop.start()
    await begun.wait()
    await loop.stop(grace_s=0)
    assert cancelled.is_set()


async def test_owner_counts_logs_and_cancels_its_tasks(caplog: pytest.LogCaptureFixture) -> None:
    owner = TaskOwner("owner", limit=2)

    async def fails() -> None:
        raise ValueError("lost")

    async def waits() -> None:
        await asyncio.Event().wait()

    owner.spawn(fails(), "one")
    assert owner.free == 1
    await owner.drain(10)
    assert owner.free == 2
    assert "owner:one: task failed" in caplog.text
    task = owner.spawn(waits(), "two")
    await owner.close()
    assert task.cancelled()
