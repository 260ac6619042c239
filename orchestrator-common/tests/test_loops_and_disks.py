"""The loop engine, owned tasks, threads and durable writes."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from job_orchestrator.common.errors import StorageFull
from job_orchestrator.common.runtime.loops import Loop, TaskOwner
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.storage.durable import (
    fsync_tree,
    full_disk_as_domain_error,
    write_durably,
)


async def test_wake_up_during_a_pass_leads_to_another_pass() -> None:
    passes = asyncio.Queue[int]()
    go_on = asyncio.Event()

    async def run_pass() -> None:
        passes.put_nowait(1)
        await go_on.wait()

    loop = Loop("test", run_pass, interval_s=3600)
    loop.start()
    async with asyncio.timeout(10):
        await passes.get()
        loop.wake()
        go_on.set()
        await passes.get()
    assert loop.alive
    await loop.stop()
    assert not loop.alive
    await loop.stop()


async def test_failing_pass_is_logged_counted_and_tried_again(
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
    async with asyncio.timeout(10):
        await recovered.wait()
    await loop.stop()
    assert loop.failures == 0
    assert [r.getMessage() for r in caplog.records].count(
        "test: pass failed, next try in 0.0 s"
    ) == 2


async def test_stop_cancels_a_pass_that_outlasts_its_grace() -> None:
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


async def test_owner_bounds_reports_and_ends_its_tasks(caplog: pytest.LogCaptureFixture) -> None:
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


async def test_cancelled_caller_waits_for_its_thread() -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(10)
        ended.set()

    task = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


def test_durable_write_replaces_the_whole_and_leaves_no_temporary(tmp_path: Path) -> None:
    write_durably(tmp_path / "x", b"one")
    write_durably(tmp_path / "x", b"two")
    fsync_tree(tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"x": b"two"}


def test_only_a_full_disk_is_a_full_storage() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(StorageFull), full_disk_as_domain_error():
            os.write(descriptor, b"x")
    finally:
        os.close(descriptor)
    with pytest.raises(FileNotFoundError), full_disk_as_domain_error():
        Path("/nowhere/x").read_bytes()
