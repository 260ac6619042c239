"""Walking a work folder that a script changes at the same time."""

from pathlib import Path

import pytest

from job_orchestrator.client.results.walk import NotRegular, open_regular, walk
from job_orchestrator.client.workspace.layout import Workspaces
from payload_folders import new_workspace


def test_walk_folder_replaced_by_a_link_does_not_follow_it(
    workspaces: Workspaces, tmp_path: Path
) -> None:
    """A script can do this while /retrieve_partial packs; its sandbox does not bind the packer."""
    workspace = new_workspace(workspaces, "one")
    others = tmp_path / "others"
    (others / "deep").mkdir(parents=True)
    (others / "deep" / "secret").write_text("secret")
    for name in ("listed", "opened"):
        (workspace.work / name / "deep").mkdir(parents=True)
        (workspace.work / name / "deep" / "secret").write_text("mine")
    skipped: dict[str, str] = {}

    def become_a_link(name: str) -> None:
        (workspace.work / name).rename(workspace.root / name)
        (workspace.work / name).symlink_to(others)

    left_out = "it is a link that leads outside"
    found = walk(workspace.work, skipped.__setitem__, lambda: None)
    assert next(found).name == "run.sh"  # the folders next to it are listed by now
    seen = next(found)
    assert seen.name == "opened/deep/secret"
    become_a_link("opened")
    with pytest.raises(NotRegular, match=left_out):
        open_regular(seen.path, workspace.work)
    become_a_link("listed")
    assert list(found) == []
    assert skipped.keys() == {"listed/"}
