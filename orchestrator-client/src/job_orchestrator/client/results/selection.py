"""Selection of the files of a work folder that are packed.

The digests of the uploaded files are taken while they arrive, and are compared when the results are
packed. Times and inodes say too little: a script can restore the time of a file that it changed.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping

import msgspec

from job_orchestrator.client.results.walk import NotRegular, open_regular
from job_orchestrator.client.workspace.layout import Workspace
from job_orchestrator.common.protocol.selection import (
    EVERYTHING,
    RESULTS,
    Patterns,
    ResultKind,
    Selection,
    are_acceptable,
)
from job_orchestrator.common.storage.form_writer import Fields

MAX_STORED_BYTES = 64 << 20
"""Limit of the stored selection, which the longest names of all files of a form do not reach."""


class _Stored(msgspec.Struct, frozen=True):
    """Content of the file. ``uploaded`` are the digests of the uploaded files, by path."""

    outputs: tuple[str, ...]
    uploaded: dict[str, bytes]


class SelectedFiles:
    """Decides which files are packed, and counts those that are left out."""

    def __init__(
        self, outputs: tuple[str, ...] = (), uploaded: Mapping[str, bytes] | None = None
    ) -> None:
        self._patterns = Patterns(outputs)
        self._uploaded = uploaded or {}
        self.left_out = 0

    def leaves_out_name(self, name: str) -> bool:
        """Return whether no pattern matches the name of a file or empty folder."""
        left_out = not self._patterns.match(name)
        self.left_out += left_out
        return left_out

    def may_be_unchanged(self, name: str) -> bool:
        """Return whether a file of this name was uploaded and is left out if it is unchanged."""
        return name in self._uploaded

    def leaves_out_content(self, name: str, blocks: Iterable[bytes]) -> bool:
        """Return whether the content of a file is the one that was uploaded under its name."""
        digest = hashlib.sha256()
        for block in blocks:
            digest.update(block)
        left_out = digest.digest() == self._uploaded[name]
        self.left_out += left_out
        return left_out


def wants_digests(fields: Fields) -> bool:
    """Return whether unchanged files will be left out, by the fields in front of the files."""
    return any(text.strip().lower() == ResultKind.NEW for text in fields.get(RESULTS, ()))


def store_selection(
    workspace: Workspace, selection: Selection, digests: Mapping[str, bytes]
) -> None:
    """Store a selection next to the work folder. Blocks; raises ``OSError``."""
    if selection != EVERYTHING:
        uploaded = digests if selection.kind is ResultKind.NEW else {}
        stored = _Stored(selection.outputs, dict(uploaded))
        with workspace.selection.open("xb") as file:
            file.write(msgspec.json.encode(stored))


def load_selection(workspace: Workspace) -> SelectedFiles:
    """Load the selection of a workspace. Blocks.

    A script without a sandbox can change the file. If it can't be read, everything is selected.
    """
    if not os.path.lexists(workspace.selection):
        return SelectedFiles()
    try:
        descriptor = open_regular(str(workspace.selection), workspace.root.resolve())
        with open(descriptor, "rb") as file:  # noqa: PTH123
            stored = msgspec.json.decode(file.read(MAX_STORED_BYTES), type=_Stored)
    except (OSError, NotRegular, msgspec.MsgspecError):
        return SelectedFiles()
    if not are_acceptable(stored.outputs):
        return SelectedFiles()
    return SelectedFiles(stored.outputs, stored.uploaded)
