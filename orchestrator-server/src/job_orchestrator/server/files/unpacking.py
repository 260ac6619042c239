"""Unpacks results for the jobs that wait for them, within bounds. All functions block.

The ZIP comes from a client, and is not trusted: names are checked as those of uploaded files are,
and an entry never yields more than the directory has announced.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from job_orchestrator.common.config.units import size_text
from job_orchestrator.common.protocol.paths import check_path, collision, parents
from job_orchestrator.server.files.zip_reader import (
    BUFFER_BYTES,
    Entry,
    EntryReader,
    NotAZip,
    read_directory,
    read_entries,
)

INPUTS = ".inputs"
"""Folder of the results of other jobs, among the files of a job."""


@dataclass
class Room:
    """Room that is left for unpacked files: their number, and their bytes."""

    files: int
    bytes: int

    def take(self, entry: Entry) -> None:
        """Take the room of an entry. Raises ``NotAZip`` if there is none left."""
        self.files -= 1
        self.bytes -= entry.size
        if self.files < 0:
            raise NotAZip("they have too many files")
        if self.bytes < 0:
            raise NotAZip(f"they are {size_text(-self.bytes)} too large (MAX_UPLOAD_SIZE)")


@dataclass(frozen=True)
class PackedFile:
    """A file in a ZIP, and the checked path that it gets. The ZIP stays open."""

    path: str
    archive: IO[bytes]
    entry: Entry

    def content(self) -> bytes:
        """Return the content of a small file. Raises ``NotAZip``."""
        return b"".join(self._blocks())

    def write_to(self, folder: Path) -> Path:
        """Write the file below ``folder``, and return its path. Raises ``NotAZip``, ``OSError``."""
        target = folder / self.path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            file.writelines(self._blocks())
        return target

    def _blocks(self) -> Iterator[bytes]:
        reader, left = EntryReader(self.archive, self.entry), self.entry.size
        while block := reader.read(BUFFER_BYTES):
            left -= len(block)
            if left < 0:
                break
            yield block
        if left:
            raise NotAZip(f"{self.entry.path[:100]!r} has another size than its directory says")


def packed_files(archive: IO[bytes], folder: str, room: Room) -> list[PackedFile]:
    """List the files of a ZIP, with paths below ``folder``, and take their room.

    Files that were inputs from other jobs are left out: otherwise each job of a chain would have
    those of all jobs before it. Raises ``NotAZip``, ``UnsafePath``.
    """
    found: list[PackedFile] = []
    taken: set[str] = set()
    folders: set[str] = set()
    for entry in read_entries(archive, read_directory(archive)):
        if entry.is_folder or entry.path.startswith(f"{INPUTS}/"):
            continue
        path = check_path(f"{folder}/{entry.path}")
        if problem := collision(path, taken, folders):
            raise NotAZip(problem)
        room.take(entry)
        taken.add(path)
        folders.update(parents(path))
        found.append(PackedFile(path, archive, entry))
    return found
