"""Results that leave out files: ``outputs`` and ``results=new`` of a submit."""

import asyncio
import json
import os
import zipfile
from collections.abc import Sequence

import pytest

from job_orchestrator.client.results.packer import Packer
from job_orchestrator.client.results.selection import store_selection
from job_orchestrator.client.workspace.layout import Workspaces
from job_orchestrator.common.protocol.selection import Selection
from payload_folders import new_workspace
from running_client import Client

NEW = [("results", "new")]
SYSTEM = {".orchestrator/stdout.txt", ".orchestrator/stderr.txt", ".orchestrator/result.json"}


async def results_of(
    client: Client, script: str, fields: Sequence[tuple[str, str]], **files: bytes
) -> zipfile.ZipFile:
    payload = await client.run(script, fields=fields, **files)
    assert payload["status"] == "Completed", payload
    return await client.archive(payload["id"], "retrieve")


def names(archive: zipfile.ZipFile) -> set[str]:
    return set(archive.namelist()) - SYSTEM


def left_out(archive: zipfile.ZipFile) -> int:
    return int(json.loads(archive.read(".orchestrator/result.json"))["left_out_count"])


async def test_new_results_leave_out_the_inputs_and_keep_the_logs(client: Client) -> None:
    archive = await results_of(client, "cat a > b; echo hi", NEW, a=b"input", **{"d/x": b"in"})
    assert names(archive) == {"b"}
    assert set(archive.namelist()) >= SYSTEM
    assert left_out(archive) == 3


async def test_new_results_have_an_input_that_the_script_changed(client: Client) -> None:
    """Only the content decides, not size, times or inode."""
    script = """
        touch -r same time
        printf B > same; touch -r time same
        echo more >> longer
        rm replaced; printf 2 > replaced
        touch touched; chmod 600 touched
        mv moved elsewhere
        mv copied x; cp -p x copied; rm x
        rm time
    """
    inputs = ("same", "longer", "replaced", "touched", "moved", "copied", "untouched")
    archive = await results_of(client, script, NEW, **dict.fromkeys(inputs, b"A"))
    assert names(archive) == {"same", "longer", "replaced", "elsewhere"}
    assert archive.read("same") == b"B"


async def test_new_results_have_a_folder_that_the_script_emptied(client: Client) -> None:
    archive = await results_of(client, "rm d/x; mkdir e", NEW, **{"d/x": b"in"})
    assert names(archive) == {"d/", "e/"}


async def test_outputs_select_the_files_that_match_one_of_the_patterns(client: Client) -> None:
    fields = [("outputs", "*.csv"), ("outputs", "plots/")]
    script = "mkdir -p plots/deep tmp; touch a.csv tmp/b.csv plots/deep/c.png core"
    archive = await results_of(client, script, fields, **{"in.csv": b"1", "in.dat": b"2"})
    assert names(archive) == {"a.csv", "in.csv", "plots/deep/c.png"}
    assert left_out(archive) == 4


async def test_outputs_and_new_results_together_select_what_satisfies_both(client: Client) -> None:
    fields = [("outputs", "*.csv"), *NEW]
    archive = await results_of(client, "touch a.csv b", fields, **{"in.csv": b"1"})
    assert names(archive) == {"a.csv"}


async def test_partial_results_of_a_failed_script_are_selected_too(client: Client) -> None:
    payload = await client.run("touch out; exit 3", fields=NEW, data=b"input")
    assert payload["status"] == "Failed"
    assert names(await client.archive(payload["id"])) == {"out"}


async def test_without_a_selection_all_files_are_packed(client: Client) -> None:
    archive = await results_of(client, "touch out", [], data=b"input")
    assert names(archive) == {"run.sh", "data", "out"}


@pytest.mark.parametrize("field", [("outputs", "../x"), ("results", "some")])
async def test_invalid_selection_is_a_400_and_leaves_nothing(
    client: Client, field: tuple[str, str]
) -> None:
    status, answer = await client.post("exit 0", fields=[field])
    assert (status, answer["id"]) == (400, 0)
    assert answer["message"].startswith(f"Invalid {field[0]}")
    assert not any(client.data.iterdir())


@pytest.mark.parametrize("planted", ["fifo", "link", "garbage", "many", "nothing"])
def test_selection_that_a_script_replaced_blocks_no_packing(
    workspaces: Workspaces, planted: str
) -> None:
    workspace = new_workspace(workspaces, "one")
    store_selection(workspace, Selection(("nothing",)), {})
    workspace.selection.unlink()
    if planted == "fifo":
        os.mkfifo(workspace.selection)
    elif planted == "link":
        workspace.selection.symlink_to("/dev/zero")
    elif planted == "many":
        patterns = ",".join(f'"{number}"' for number in range(100_000))
        workspace.selection.write_text(f'{{"outputs":[{patterns}],"uploaded":{{}}}}')
    elif planted == "garbage":
        workspace.selection.write_bytes(b"{")
    file, _ = asyncio.run(Packer().pack_partial(workspace))
    with file:
        assert "run.sh" in zipfile.ZipFile(file).namelist()
