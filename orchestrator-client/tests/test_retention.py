"""Retention: files of ended payloads are removed, active payloads stay, memory does not grow."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import uuid4

import pytest

from job_orchestrator.client.errors import PayloadNotFound
from job_orchestrator.client.payloads.orphaned_folders import OrphanedFolders
from job_orchestrator.client.payloads.retention import ROWS_KEPT_S, Retention
from job_orchestrator.client.payloads.store import PayloadStore, open_payloads
from job_orchestrator.client.results.kept import KeptResults
from job_orchestrator.client.workspace import deferred_removal
from job_orchestrator.client.workspace.layout import Workspaces
from job_orchestrator.common.status import PayloadStatus
from payload_folders import new_workspace
from running_client import Client

MAX_AGE_S = 100.0


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    store: PayloadStore
    workspaces: Workspaces
    retention: Retention
    clock: Clock

    async def add(self, payload: int, *, end: bool) -> None:
        name = f"u{payload}"
        await asyncio.to_thread(new_workspace, self.workspaces, name)
        await self.store.add(payload, name, None)
        await self.store.start(1)
        if end:
            await self.store.finish(payload, PayloadStatus.COMPLETED, "", 0)

    async def folders(self) -> set[str]:
        entries = await asyncio.to_thread(lambda: list(self.workspaces.root.iterdir()))
        return {path.name for path in entries}


@pytest.fixture
async def world(workspaces: Workspaces) -> AsyncIterator[World]:
    clock = Clock()
    async with open_payloads(clock) as store:
        retention = Retention(store, workspaces, KeptResults(), max_age_s=MAX_AGE_S)
        world = World(store, workspaces, retention, clock)
        yield world


async def test_folder_that_no_payload_has_is_removed_and_no_other(world: World) -> None:
    arriving, kept, orphaned, given_back = (str(uuid4()) for _ in range(4))
    for name in (arriving, kept, orphaned, given_back, "probe-1"):
        await asyncio.to_thread(new_workspace, world.workspaces, name)
    await world.store.add(1, kept, None)
    await world.store.add(2, given_back, None)
    await world.store.give_back_unstarted(2, "The machine has a fault")
    large = world.retention.large
    await OrphanedFolders(world.store, world.workspaces, {arriving}, large).run_pass()
    await large.run_pass()
    assert await world.folders() == {arriving, kept, "probe-1"}


async def test_trap_39_ended_payload_is_cleaned_by_age_and_a_running_one_never(
    world: World,
) -> None:
    await world.add(1, end=False)
    await world.add(2, end=True)
    world.clock.now += MAX_AGE_S - 1
    await world.add(3, end=True)
    await world.retention.run_pass()
    assert await world.folders() == {"u1", "u2", "u3"}
    world.clock.now += 2
    await world.retention.run_pass()
    assert await world.folders() == {"u1", "u3"}
    assert (await world.store.get(2)).status is PayloadStatus.CLEANED
    world.clock.now += 10 * MAX_AGE_S
    await world.retention.run_pass()
    assert (await world.store.get(1)).status is PayloadStatus.RUNNING
    assert await world.folders() == {"u1"}


async def test_row_of_a_cleaned_payload_is_deleted_later(world: World) -> None:
    await world.add(1, end=True)
    world.clock.now += MAX_AGE_S + 1
    await world.retention.run_pass()
    world.clock.now += ROWS_KEPT_S
    await world.retention.run_pass()
    with pytest.raises(PayloadNotFound):
        await world.store.get(1)


async def test_active_payload_cannot_be_cleaned(world: World) -> None:
    await world.add(1, end=False)
    assert await world.retention.clean([1, 2]) == []
    assert await world.folders() == {"u1"}


async def test_folder_that_cannot_be_removed_does_not_keep_others(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.add(1, end=True)
    await world.add(2, end=True)
    # A file in the place of the folder cannot be emptied.
    await asyncio.to_thread(world.workspaces.remove, "u1")
    (world.workspaces.root / "u1").touch()
    world.clock.now += MAX_AGE_S + 1
    await world.retention.run_pass()
    assert "Files of payload 1 cannot be removed" in caplog.text
    assert "u2" not in await world.folders()
    assert (await world.store.get(2)).status is PayloadStatus.CLEANED


async def test_large_folder_is_removed_in_the_background_after_the_small_ones(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deferred_removal, "SMALL_ENTRIES", 20)
    for payload in (1, 2):
        await world.add(payload, end=True)
    deep = world.workspaces.of("u1").work / "/".join("d" * 20)
    await asyncio.to_thread(deep.mkdir, parents=True)
    assert await world.retention.clean([1, 2]) == [1, 2]
    (left,) = await world.folders()
    assert left.startswith("u1.")
    assert (await world.store.get(1)).status is PayloadStatus.CLEANED
    await world.retention.large.run_pass()
    assert await world.folders() == set()


async def test_removal_of_a_large_folder_stops_with_the_client(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deferred_removal, "SMALL_ENTRIES", 0)
    await world.add(1, end=True)
    await world.retention.clean([1])
    world.retention.large.stop()
    await world.retention.large.run_pass()
    assert len(await world.folders()) == 1
    await asyncio.to_thread(world.workspaces.clear)  # at the next start
    assert await world.folders() == set()


async def test_client_removes_a_large_folder_in_the_background(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deferred_removal, "SMALL_ENTRIES", 5)
    payload = await client.run("mkdir -p 1/2/3/4/5/6/7\n")
    async with client.http.delete(f"/retrieve/{payload['id']}") as response:
        assert (await response.json())["status"] == "Cleaned"
    await client.eventually(lambda: not any(client.data.iterdir()))
