"""The cleaner: what ended long ago goes, what is active stays, and memory does not grow."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from job_orchestrator.client.errors import PayloadNotFound
from job_orchestrator.client.payloads.retention import ROWS_KEPT_S, Cleaner
from job_orchestrator.client.payloads.store import PayloadStore, open_payloads
from job_orchestrator.client.workspace import deferred_removal as large_trees
from job_orchestrator.client.workspace.layout import Workspaces
from job_orchestrator.common.status import PayloadStatus
from payload_folders import new_workspace
from running_client import Client

MAX_AGE_S = 100.0


@dataclass
class Setting:
    store: PayloadStore
    workspaces: Workspaces
    cleaner: Cleaner
    now: float = 0.0

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
async def setting(workspaces: Workspaces) -> AsyncIterator[Setting]:
    async with open_payloads(lambda: setting.now) as store:
        setting = Setting(store, workspaces, Cleaner(store, workspaces, max_age_s=MAX_AGE_S))
        yield setting


async def test_trap_39_ended_payload_is_cleaned_by_age_and_a_running_one_never(
    setting: Setting,
) -> None:
    await setting.add(1, end=False)
    await setting.add(2, end=True)
    setting.now += MAX_AGE_S - 1
    await setting.add(3, end=True)
    await setting.cleaner.run_pass()
    assert await setting.folders() == {"u1", "u2", "u3"}
    setting.now += 2
    await setting.cleaner.run_pass()
    assert await setting.folders() == {"u1", "u3"}
    assert (await setting.store.get(2)).status is PayloadStatus.CLEANED
    setting.now += 10 * MAX_AGE_S
    await setting.cleaner.run_pass()
    assert (await setting.store.get(1)).status is PayloadStatus.RUNNING
    assert await setting.folders() == {"u1"}


async def test_cleaned_payload_is_forgotten_in_the_end(setting: Setting) -> None:
    await setting.add(1, end=True)
    setting.now += MAX_AGE_S + 1
    await setting.cleaner.run_pass()
    setting.now += ROWS_KEPT_S
    await setting.cleaner.run_pass()
    with pytest.raises(PayloadNotFound):
        await setting.store.get(1)


async def test_active_payload_can_not_be_cleaned(setting: Setting) -> None:
    await setting.add(1, end=False)
    assert await setting.cleaner.clean([1, 2]) == []
    assert await setting.folders() == {"u1"}


async def test_folder_that_can_not_be_removed_keeps_no_other(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    await setting.add(1, end=True)
    await setting.add(2, end=True)
    # A file where the folder should be: it can't be emptied.
    await asyncio.to_thread(setting.workspaces.remove, "u1")
    (setting.workspaces.root / "u1").touch()
    setting.now += MAX_AGE_S + 1
    await setting.cleaner.run_pass()
    assert "Files of payload 1 can't be removed" in caplog.text
    assert "u2" not in await setting.folders()
    assert (await setting.store.get(2)).status is PayloadStatus.CLEANED


async def test_large_folder_keeps_no_small_one_and_is_removed_by_itself(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_trees, "SMALL_ENTRIES", 20)
    for payload in (1, 2):
        await setting.add(payload, end=True)
    deep = setting.workspaces.of("u1").work / "/".join("d" * 20)
    await asyncio.to_thread(deep.mkdir, parents=True)
    assert await setting.cleaner.clean([1, 2]) == [1, 2]
    (left,) = await setting.folders()
    assert left.startswith("u1.")
    assert (await setting.store.get(1)).status is PayloadStatus.CLEANED
    await setting.cleaner.large.run_pass()
    assert await setting.folders() == set()


async def test_removal_of_a_large_folder_keeps_no_client_from_stopping(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_trees, "SMALL_ENTRIES", 0)
    await setting.add(1, end=True)
    await setting.cleaner.clean([1])
    setting.cleaner.large.stop()
    await setting.cleaner.large.run_pass()
    assert len(await setting.folders()) == 1
    await asyncio.to_thread(setting.workspaces.clear)  # at the next start
    assert await setting.folders() == set()


async def test_client_removes_large_folders_by_itself(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_trees, "SMALL_ENTRIES", 5)
    payload = await client.run("mkdir -p 1/2/3/4/5/6/7\n")
    async with client.http.delete(f"/retrieve/{payload['id']}") as response:
        assert (await response.json())["status"] == "Cleaned"
    await client.eventually(lambda: not any(client.data.iterdir()))
