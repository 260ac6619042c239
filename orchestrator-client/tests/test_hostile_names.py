"""Scripts that replace the system's files, next to their work folder: nothing hangs or goes astray.

By default scripts have the rights of the client, so they can write where its own files are.
"""

import asyncio
import os
import zipfile
from pathlib import Path

import pytest

from job_orchestrator.client import keys
from job_orchestrator.client.payloads.ids import BLOCK
from job_orchestrator.client.results.packer import Packer
from job_orchestrator.client.workspace.layout import Workspaces
from payload_folders import new_workspace
from running_client import Client, StartClient
from test_packer import OUTCOME

SYSTEM_FILES = ("results.zip", ".results.zip.tmp", "stdout.txt", "stderr.txt", "selection.json")

IN_PLACE = {
    "FIFO": "mkfifo ../$name",
    "folder": "mkdir -p ../$name/full/of/folders",
    "link to a device": "ln -s /dev/full ../$name",
    "link to a file": "ln -s $PWD/treasure ../$name",
    "link to itself": "ln -s $name ../$name",
}


def replacing(command: str) -> str:
    """Make a script that puts something in the place of each of the system's files."""
    names = " ".join(SYSTEM_FILES)
    return f"echo gold > treasure\nfor name in {names}; do rm -f ../$name; {command}; done\n"


@pytest.mark.parametrize("kind", IN_PLACE)
async def test_trap_67_nothing_in_place_of_the_clients_files_holds_or_diverts_it(
    start_client: StartClient, kind: str
) -> None:
    client = await start_client(SLOTS="8")
    count = 2 * (os.cpu_count() or 1)
    async with asyncio.timeout(60):
        hostile = [await client.submit(replacing(IN_PLACE[kind])) for _ in range(count)]
        for payload in hostile:
            await client.until(payload, "Completed")
            archive = await client.archive(payload, "retrieve")
            assert archive.read("treasure") == b"gold\n"
            for stream in ("stdout", "stderr"):
                async with client.http.get(f"/logs/{payload}?stream={stream}") as response:
                    assert (response.status, await response.read()) == (200, b"")
        assert (await client.run("exit 0\n"))["status"] == "Completed"
    assert await asyncio.to_thread(unpublished, client.data) == []


def unpublished(data: Path) -> list[Path]:
    """Find unfinished archives that were left."""
    return [path for path in data.glob("*/.results.*") if not path.is_symlink() and path.is_file()]


async def test_results_that_are_replaced_after_packing_are_gone(client: Client) -> None:
    payload = await client.submit("head -c 100000 /dev/urandom > out; exit 0\n")
    await client.until(payload, "Completed")
    (results,) = client.data.glob("*/results.zip")
    results.unlink()
    os.mkfifo(results)
    async with asyncio.timeout(20), client.http.get(f"/retrieve/{payload}") as response:
        assert response.status == 404
        assert "missing from the client's storage" in (await response.json())["message"]


async def test_payload_folder_that_becomes_a_link_diverts_nothing(
    client: Client, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    (target / "work").mkdir(parents=True)
    mode = target.stat().st_mode
    payload = await client.run(
        f'cd ..; own=$PWD; mv "$own" {tmp_path}/moved; ln -s {target} "$own"\n'
    )
    assert (payload["status"], payload["exit_code"]) == ("Failed", 0)
    assert "its folder was moved or replaced" in payload["message"]
    assert [path.name for path in target.rglob("*")] == ["work"]
    assert target.stat().st_mode == mode
    assert (await client.run("exit 0\n"))["status"] == "Completed"


async def test_payload_folder_that_was_moved_away_ends_its_payload(client: Client) -> None:
    payload = await client.run('cd ..; mv "$PWD" ../moved\n')
    assert (payload["status"], payload["exit_code"]) == ("Failed", 0)
    assert "its folder was moved or replaced" in payload["message"]
    # A server that got an error of the client would ask again, as the output may be there later.
    async with client.http.get(f"/retrieve_partial/{payload['id']}") as response:
        assert response.status == 404
        assert "its folder was moved or replaced" in (await response.json())["message"]


@pytest.mark.parametrize("kind", ["FIFO", "folder", "link to itself"])
async def test_file_of_the_next_id_that_was_replaced_stops_no_submit(
    start_client: StartClient, tmp_path: Path, kind: str
) -> None:
    command = IN_PLACE[kind].replace("..", str(tmp_path / "data"))
    client = await start_client()
    first = await client.run(f"name=next-id; rm {tmp_path}/data/next-id; {command}\n")
    ids = client.app[keys.INTAKE].ids
    taken = [await asyncio.to_thread(ids.take) for _ in range(BLOCK)]  # begins a new block
    async with asyncio.timeout(20):
        assert (await client.run("exit 0\n"))["id"] > max(taken) > first["id"]


def test_unfinished_archives_have_names_that_no_script_can_foresee(workspaces: Workspaces) -> None:
    workspace = new_workspace(workspaces, "one")
    os.mkfifo(workspace.root / ".results.zip.tmp")
    asyncio.run(Packer().pack(workspace, OUTCOME))
    with zipfile.ZipFile(workspace.results) as archive:
        assert archive.testzip() is None
