"""Files of a job of the original: found in its folder, and taken into the data folder.

The original keeps the uploaded files and ``output.zip`` in one folder. All functions block.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from job_orchestrator.common.protocol.paths import MAX_PATH_BYTES, UnsafePath, check_path
from job_orchestrator.common.status import JobStatus
from job_orchestrator.common.storage.regular_file import open_regular_file, opened_folder
from job_orchestrator.server.files.folder import PRIVATE, FolderFiles
from job_orchestrator.server.files.zip_reader import NotAZip, read_directory
from job_orchestrator.server.maintenance.takeover.record import Record

_RESULTS = "output.zip"
_SCRIPT = "run.sh"
_NEVER_DISPATCHED = frozenset({JobStatus.QUEUED, JobStatus.PROCESSING})


@dataclass
class FoundFiles:
    """Content of a job's folder: sizes of the inputs by path, and the results.

    ``problem`` says why the inputs can't be sent to a client, ``results_problem`` why there are no
    results.
    """

    folder: Path
    inputs: dict[str, int] = field(default_factory=dict)
    results_bytes: int | None = None
    results_at: float = 0.0
    results_exist: bool = False
    problem: str = ""
    results_problem: str = ""

    @property
    def input_bytes(self) -> int:
        """Size of all inputs together."""
        return sum(self.inputs.values())


def find_files(record: Record) -> FoundFiles:
    """List the files of a job. Raises ``OSError`` if the folder exists and can't be read."""
    found = FoundFiles(record.folder)
    has_results = record.status not in _NEVER_DISPATCHED
    try:
        for path, entry in _entries(record.folder):
            if path == _RESULTS and has_results:
                continue
            if entry.is_file(follow_symlinks=False):
                found.inputs[path] = entry.stat(follow_symlinks=False).st_size
            else:
                found.problem = f"{path[:100]!r} is not a regular file"
            try:
                check_path(path)
            except UnsafePath as error:
                found.problem = str(error)
    except FileNotFoundError:
        found.problem = found.results_problem = f"its folder {record.folder} is missing"
        found.inputs.clear()
        return found
    if _SCRIPT not in found.inputs and not found.problem:
        found.problem = f"it has no {_SCRIPT}"
    if record.status is JobStatus.COMPLETED:
        _find_results(found)
    return found


def _find_results(found: FoundFiles) -> None:
    path = found.folder / _RESULTS
    try:
        with open(open_regular_file(path), "rb") as file:  # noqa: PTH123 (a descriptor)
            found.results_exist = True
            status = os.fstat(file.fileno())
            read_directory(file)
    except FileNotFoundError:
        found.results_problem = f"its results, {path}, are missing"
    except NotAZip as error:
        found.results_problem = f"its results, {path}, are not a complete ZIP file: {error}"
    else:
        found.results_bytes, found.results_at = status.st_size, status.st_mtime


def take_files(files: FolderFiles, uuid: str, found: FoundFiles, attempt: int) -> None:
    """Make the files those of the job ``uuid``, whose row is written afterwards.

    They are not flushed. What an earlier import has left is replaced. Raises ``OSError``.
    """
    target = files.staging_folder(uuid)
    staged = target.parent
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(PRIVATE)
    target.mkdir()
    for path in found.inputs:
        if "/" in path:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
        _link_or_copy(found.folder / path, target / path)
    if found.results_bytes is not None:
        results = files.result_path(uuid, attempt)
        _link_or_copy(found.folder / _RESULTS, staged / results.name)
    shutil.rmtree(files.job_folder(uuid), ignore_errors=True)
    staged.rename(files.job_folder(uuid))


def _entries(folder: Path) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """Iterate over what is below a folder, without the folders that are searched themselves.

    Raises ``NotADirectoryError`` if ``folder`` is a link. A folder whose path is too long for a
    file in it is not searched.
    """
    with opened_folder(folder):
        pass
    prefixes = [""]
    while prefixes:
        prefix = prefixes.pop()
        with os.scandir(folder / prefix) as entries:
            for entry in entries:
                path = f"{prefix}{entry.name}"
                if entry.is_dir(follow_symlinks=False) and len(path) < MAX_PATH_BYTES:
                    prefixes.append(f"{path}/")
                else:
                    yield path, entry


def _link_or_copy(source: Path, target: Path) -> None:
    with open(open_regular_file(source), "rb") as content:  # noqa: PTH123 (a descriptor)
        with contextlib.suppress(OSError):
            os.link(source, target, follow_symlinks=False)
            if target.lstat().st_ino == os.fstat(content.fileno()).st_ino:
                return
            target.unlink()  # the name has changed hands since
        with target.open("xb") as copy:
            shutil.copyfileobj(content, copy)
