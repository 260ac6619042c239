"""Integrity check of database and data folder, and repair.

A check may run while the server runs. It then examines everything twice, because jobs are created
and cleaned in between; a repair requires that no server runs. A repair gives up nothing that can
still be read: the inputs of an ended job are not needed, and a file that can't be read now
(permissions, a failing disk) is left to the administrator. All functions block.
"""

import contextlib
import hashlib
import io
import os
import shutil
import time
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from job_orchestrator.common.errors import BadRequest
from job_orchestrator.common.protocol.small_files import decode_files
from job_orchestrator.server.files.folder import FolderFiles
from job_orchestrator.server.files.zip_reader import NotAZip, read_directory
from job_orchestrator.server.store.sqlite.maintenance.counters import (
    recount_arrays,
    recount_dependencies,
    recount_usage,
    wrong_arrays,
    wrong_dependencies,
    wrong_usage,
)
from job_orchestrator.server.store.sqlite.maintenance.kept_jobs import (
    Database,
    KeptJob,
    cleaned_of,
    complete_histories,
    damage,
    forget_output,
    inline_inputs,
    inline_result,
    kept_arrays,
    kept_jobs,
    mark_cleaned,
    opened,
    wrong_histories,
)

RECHECK_DELAY_S = 2.0
MAX_HISTORIES = 20
"""Findings about histories that are listed one by one."""


class Remedy(Enum):
    """Remedy for a finding. Those in ``NOT_REPAIRED`` are left to the administrator."""

    RESTORE = "restore a backup"
    READABLE = "nothing is changed; make sure that the user of jo-server can read it"
    REPLACE = "nothing is changed; take the file from a backup, or submit the job again"
    SERVER = "the server ends the job, with the reason, when it needs them"
    CLEAN = "the job {} marked Cleaned"
    FORGET = "the job {} marked as without output"
    REMOVE = "it {} removed"
    APPEND = "an event {} added"
    RECOUNT = "it {} counted again"

    def description(self, *, repairing: bool) -> str:
        """Return a text for the administrator: what a repair does, or what it would do."""
        if self in NOT_REPAIRED:
            return self.value
        if repairing:
            return self.value.format("is")
        return f"with --repair {self.value.format('would be')}"


NOT_REPAIRED = frozenset({Remedy.RESTORE, Remedy.READABLE, Remedy.REPLACE, Remedy.SERVER})


@dataclass(frozen=True)
class Finding:
    """An inconsistency, about a job or a path."""

    problem: str
    remedy: Remedy
    job_id: int = 0
    path: Path | None = None


def find_problems(
    database: Path,
    files: FolderFiles,
    *,
    exclusive: bool,
    digests: bool = False,
    wait: Callable[[float], None] = time.sleep,
) -> list[Finding]:
    """Check database and files. ``exclusive`` says that no server runs.

    With ``digests``, all results are read and compared with their digests. Raises
    ``DatabaseUnusable``.
    """
    with opened(database) as connection:
        broken = [
            Finding(f"The database is damaged: {line}", Remedy.RESTORE)
            for line in damage(connection)
        ]
        if broken:
            return broken
        found = _examine(connection, files, exclusive=exclusive)
        if digests:
            found += _damaged_results(connection, files, {finding.job_id for finding in found})
        if found and not exclusive:
            # An upload has its folder a moment before its row; a job that is being cleaned has its
            # folder a moment longer than its row says. Such findings disappear by themselves.
            wait(RECHECK_DELAY_S)
            again = set(_examine(connection, files, exclusive=exclusive))
            found = [
                finding for finding in found if finding in again or finding.remedy is Remedy.REPLACE
            ]
        return found


def apply_remedies(database: Path, findings: list[Finding]) -> list[Finding]:
    """Repair what can be repaired, while no server runs. Returns the findings that remain."""
    with opened(database) as connection:
        clean = [f.job_id for f in findings if f.remedy is Remedy.CLEAN]
        mark_cleaned(connection, clean, "Its files are gone from the disk", time.time())
        forget_output(connection, [f.job_id for f in findings if f.remedy is Remedy.FORGET])
        if any(f.remedy is Remedy.APPEND for f in findings):
            complete_histories(connection)
        if any(f.remedy is Remedy.RECOUNT for f in findings):
            if wrong_arrays(connection):
                recount_arrays(connection)
            recount_usage(connection)
            if wrong_dependencies(connection):
                recount_dependencies(connection)
    return [f for f in findings if f.remedy in NOT_REPAIRED or not _removed(f)]


def _examine(connection: Database, files: FolderFiles, *, exclusive: bool) -> list[Finding]:
    # The folders are listed before the rows: otherwise the folder of a job that is submitted in
    # between would look like an orphan.
    stored = set(files.stored_uuids())
    jobs = list(kept_jobs(connection))
    found = [finding for job in jobs for finding in _check_job(connection, job, files)]
    orphans = stored - {job.uuid for job in jobs} - {each.uuid for each in kept_arrays(connection)}
    found += [
        Finding(f"The folder {uuid} belongs to no job", Remedy.REMOVE, path=files.job_folder(uuid))
        for uuid in sorted(orphans)
    ]
    if exclusive:
        found += list(_find_leftovers(files, jobs))
    found += list(_check_histories(connection))
    found += [
        Finding(f"The usage of user {user_id} is counted wrongly", Remedy.RECOUNT)
        for user_id in wrong_usage(connection)
    ]
    found += [
        Finding(f"Job {job_id} counts its dependencies wrongly", Remedy.RECOUNT, job_id)
        for job_id in wrong_dependencies(connection)
    ]
    found += [
        Finding(f"Array {array_id} counts its tasks wrongly", Remedy.RECOUNT)
        for array_id in wrong_arrays(connection)
    ]
    cleaned = cleaned_of(connection, [finding.job_id for finding in found if finding.job_id])
    return [finding for finding in found if finding.job_id not in cleaned]


def _check_job(connection: Database, job: KeptJob, files: FolderFiles) -> Iterator[Finding]:
    name = f"Job {job.id} is {job.status}"
    own_inputs = job.array_id is None and not job.inline_inputs
    in_folder = own_inputs and not job.inline_result
    if not job.status.has_ended:
        # The inputs are needed for the first or another attempt.
        script = files.input_folder(job.inputs_uuid) / "run.sh"
        yield from _check_inputs(connection, job, name, script)
    elif in_folder and not os.path.lexists(files.job_folder(job.uuid)):
        yield Finding(f"{name}, and its files are gone", Remedy.CLEAN, job.id)
    elif job.has_output:
        path = files.result_path(job.uuid, job.attempt)
        yield from _check_output(job, name, path, inline_result(connection, job))


def _check_inputs(connection: Database, job: KeptJob, name: str, script: Path) -> Iterator[Finding]:
    block = inline_inputs(connection, job)
    if block is not None:
        try:
            decode_files(block)
        except BadRequest as error:
            yield Finding(f"{name}, and its files can't be read: {error}", Remedy.SERVER, job.id)
    elif not os.path.isfile(script):  # noqa: PTH113 (Path.is_file raises for some errors)
        yield Finding(f"{name}, and its files are gone", Remedy.SERVER, job.id)


def _check_output(job: KeptJob, name: str, path: Path, content: bytes | None) -> Iterator[Finding]:
    """Check a ZIP: ``content``, or the file. Its directory, at its end, shows it is complete."""
    try:
        with _opened(path, content) as file:
            read_directory(file)
    except FileNotFoundError:
        yield Finding(f"{name}, and its output is gone", Remedy.FORGET, job.id)
    except NotAZip as error:
        yield Finding(f"{name}, and its output can't be read: {error}", Remedy.FORGET, job.id)
    except OSError as error:
        yield Finding(f"{name}, and its output can't be read: {error}", Remedy.READABLE, job.id)


def _opened(path: Path, content: bytes | None) -> io.BufferedReader | io.BytesIO:
    """Open results: ``content`` from the database, or else a file."""
    return path.open("rb") if content is None else io.BytesIO(content)


def _damaged_results(
    connection: Database, files: FolderFiles, known: Container[int]
) -> list[Finding]:
    """Compare the results of all jobs but the ``known`` ones with their digests."""
    found = []
    for job in list(kept_jobs(connection)):
        if not job.has_output or job.output_sha256 is None or job.id in known:
            continue
        # A file that is gone or can't be read: another check finds that, or it was just removed.
        with contextlib.suppress(OSError):
            path = files.result_path(job.uuid, job.attempt)
            with _opened(path, inline_result(connection, job)) as file:
                sha256 = hashlib.file_digest(file, "sha256").digest()
            if sha256 != job.output_sha256:
                problem = f"Job {job.id} is {job.status}, and its output is not what was received"
                found.append(Finding(problem, Remedy.REPLACE, job.id))
    return found


def _check_histories(connection: Database) -> Iterator[Finding]:
    wrong = wrong_histories(connection)
    for job_id, status, last in wrong[:MAX_HISTORIES]:
        problem = f"Job {job_id} is {status}, and its history ends with {last}"
        yield Finding(problem, Remedy.APPEND, job_id)
    if len(wrong) > MAX_HISTORIES:
        problem = f"The histories of {len(wrong) - MAX_HISTORIES} more jobs are wrong"
        yield Finding(problem, Remedy.APPEND)


def _find_leftovers(files: FolderFiles, jobs: list[KeptJob]) -> Iterator[Finding]:
    """Find what a crash interrupted. While a server runs, such files may be in use."""
    with contextlib.suppress(FileNotFoundError):
        for path in files.unfinished_uploads():
            yield Finding(f"The upload {path.name} is incomplete", Remedy.REMOVE, path=path)
    for job in jobs:
        for path in files.unfinished_results(job.uuid):
            problem = f"Received results of job {job.id} are incomplete"
            yield Finding(problem, Remedy.REMOVE, path=path)


def _removed(finding: Finding) -> bool:
    """Remove the path of a finding, and return whether nothing of it is left."""
    path = finding.path
    if finding.remedy is not Remedy.REMOVE or path is None:
        return True
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    return not os.path.lexists(path)
