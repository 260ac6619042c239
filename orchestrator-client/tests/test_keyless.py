"""Payloads of servers that send no key, and can't learn that a payload is lost."""

from pathlib import Path

import pytest

from job_orchestrator.client.payloads.stored.keyless import MAX_IDS, KeylessPayloads
from running_client import StartClient


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "without-key"


def reloaded(file: Path) -> tuple[KeylessPayloads, list[int]]:
    kept = KeylessPayloads(file)
    return kept, list(kept.load())


def test_ids_are_kept_and_the_oldest_ones_are_forgotten(file: Path) -> None:
    kept, ids = reloaded(file)
    assert ids == []
    kept.add(4_000_000_000)
    assert reloaded(file)[1] == [4_000_000_000]
    file.write_text(" ".join(map(str, range(MAX_IDS))))
    kept, _ = reloaded(file)
    kept.add(7_000_000)
    assert reloaded(file)[1] == [*range(1, MAX_IDS), 7_000_000]


@pytest.mark.parametrize("content", [b"\xff\0", b"12 x -3 " + b"9" * 30, b"1" * 100_000])
def test_anything_else_in_the_file_is_ignored(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    kept, ids = reloaded(file)
    assert set(ids) <= {12}
    kept.add(5)
    assert reloaded(file)[1][-1] == 5


def test_folder_or_link_in_place_of_the_file_is_put_aside(file: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("1")
    for is_folder in (True, False):
        file.unlink(missing_ok=True)
        if is_folder:
            file.mkdir()
        else:
            file.symlink_to(tmp_path / "elsewhere")
        kept, ids = reloaded(file)
        assert ids == []
        kept.add(6)
        assert reloaded(file)[1] == [6]
    assert (tmp_path / "elsewhere").read_text() == "1"


async def test_payload_without_a_key_is_failed_after_a_restart_and_one_with_a_key_is_unknown(
    start_client: StartClient,
) -> None:
    first = await start_client()
    without = await first.submit("sleep 300\n")
    with_key = await first.submit("sleep 300\n", key="mine.1")
    await first.http.close()
    await first.app.shutdown()
    await first.app.cleanup()
    restarted = await start_client()
    found = await restarted.get(without)
    assert (found["status"], found["message"]) == (
        "Failed",
        "The client was restarted; submit the job again",
    )
    async with restarted.http.get(f"/retrieve/{with_key}") as response:
        assert response.status == 404
