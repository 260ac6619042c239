"""Whether rows and files agree, and how what doesn't is mended.

With the server running it only looks; what is just coming or going is looked at twice. Nothing that
can still be read is given up: a job that has ended needs no inputs, and what can't be read just
now (rights, a failing disk) is left for its administrator. All functions block.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from job_orchestrator.common.status import FINAL_JOB
from job_orchestrator.server.files.folder import INCOMING, JobFiles
from job_orchestrator.server.files.zip_reader import NoZip, read_directory
from job_orchestrator.server.store.sqlite.maintenance import (
    Database,
    KeptJob,
    cleaned_of,
    complete_histories,
    damage,
    forget_output,
    kept_jobs,
    mark_cleaned,
    opened,
    recount_usage,
    wrong_histories,
    wrong_usage,
)

SECOND_LOOK_S = 2.0
MAX_HISTORIES = 20


class Remedy(Enum):
    """What helps against a finding; the first ones are not for ``mend``."""

    RESTORE = "restore a backup"
    READABLE = "nothing is changed; see that jo-server's user can read it"
    SERVER = "the server ends it, with the reason, when it needs them"
    CLEAN = "its row {} made Cleaned"
    FORGET = "its row {} made to have no output"
    REMOVE = "it {} removed"
    APPEND = "an event {} added"
    RECOUNT = "it {} counted anew"

    def told(self, *, at_work: bool) -> str:
        """In words, for an administrator: what ``mend`` does, or what it would do."""
        if self in NOT_MENDED:
            return self.value
        return (
            self.value.format("is") if at_work else f"with --repair {self.value}".format("would be")
        )


NOT_MENDED = frozenset({Remedy.RESTORE, Remedy.READABLE, Remedy.SERVER})


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: of the job, or at the path."""

    what: str
    remedy: Remedy
    job_id: int = 0
    path: Path | None = None


def find(
    database: Path, files: JobFiles, *, alone: bool, wait: Callable[[float], None] = time.sleep
) -> list[Finding]:
    """Look at everything. ``alone``: no server runs. Raises ``DatabaseUnusable``."""
    with opened(database) as connection:
        broken = [
            Finding(f"The database is damaged: {line}", Remedy.RESTORE)
            for line in damage(connection)
        ]
        if broken:
            return broken
        found = _look(connection, files, alone=alone)
        if found and not alone:
            # An upload has its folder a moment before its row, a job that is cleaned its row first.
            wait(SECOND_LOOK_S)
            again = set(_look(connection, files, alone=alone))
            found = [finding for finding in found if finding in again]
        return found


def mend(database: Path, files: JobFiles, findings: list[Finding]) -> list[Finding]:
    """Mend what can be; only while no server runs. Returns what is left as it was."""
    with opened(database) as connection:
        clean = [f.job_id for f in findings if f.remedy is Remedy.CLEAN]
        mark_cleaned(connection, clean, "Its files are gone from the disk", time.time())
        forget_output(connection, [f.job_id for f in findings if f.remedy is Remedy.FORGET])
        if any(f.remedy is Remedy.APPEND for f in findings):
            complete_histories(connection)
        if any(f.remedy is Remedy.RECOUNT for f in findings):
            recount_usage(connection)
    return [f for f in findings if f.remedy in NOT_MENDED or not _removed(f)]


def _look(connection: Database, files: JobFiles, *, alone: bool) -> list[Finding]:
    folders = set(files.folders())
    jobs = list(kept_jobs(connection))
    found = [finding for job in jobs for finding in _of_job(job, files)]
    strangers = folders - {job.uuid for job in jobs}
    found += [
        Finding(f"The folder {uuid} belongs to no job", Remedy.REMOVE, path=files.root / uuid)
        for uuid in sorted(strangers)
    ]
    if alone:
        found += list(_leftovers(files, jobs))
    found += list(_of_histories(connection))
    found += [
        Finding(f"What user {user_id} has queued and stored is counted wrongly", Remedy.RECOUNT)
        for user_id in wrong_usage(connection)
    ]
    gone = cleaned_of(connection, [finding.job_id for finding in found if finding.job_id])
    return [finding for finding in found if finding.job_id not in gone]


def _of_job(job: KeptJob, files: JobFiles) -> Iterator[Finding]:
    """What is wrong with the files of one job."""
    folder = files.root / job.uuid
    name = f"Job {job.id} is {job.status}"
    if job.status not in FINAL_JOB:
        # It may have to run, or to run again.
        if not os.path.isfile(folder / "input" / "run.sh"):  # noqa: PTH113 (raises nothing)
            yield Finding(f"{name}, and its files are gone", Remedy.SERVER, job.id)
    elif not os.path.lexists(folder):
        yield Finding(f"{name}, and its files are gone", Remedy.CLEAN, job.id)
    elif job.has_output:
        yield from _of_output(job, name, folder / f"output-{job.attempt}.zip")


def _of_output(job: KeptJob, name: str, path: Path) -> Iterator[Finding]:
    """What is wrong with a ZIP, which is whole if it has its directory: that is at its end."""
    try:
        with path.open("rb") as file:
            read_directory(file)
    except FileNotFoundError:
        yield Finding(f"{name}, and its output is gone", Remedy.FORGET, job.id)
    except NoZip as error:
        yield Finding(f"{name}, and its output can't be read: {error}", Remedy.FORGET, job.id)
    except OSError as error:
        yield Finding(f"{name}, and its output can't be read: {error}", Remedy.READABLE, job.id)


def _of_histories(connection: Database) -> Iterator[Finding]:
    wrong = wrong_histories(connection)
    for job_id, status, last in wrong[:MAX_HISTORIES]:
        what = f"Job {job_id} is {status}, and its history ends with {last}"
        yield Finding(what, Remedy.APPEND, job_id)
    if len(wrong) > MAX_HISTORIES:
        what = f"The histories of {len(wrong) - MAX_HISTORIES} more jobs are as wrong"
        yield Finding(what, Remedy.APPEND)


def _leftovers(files: JobFiles, jobs: list[KeptJob]) -> Iterator[Finding]:
    """What a crash left half done. With a server running it may just be arriving."""
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(files.root / INCOMING):
            what = f"The upload {entry.name} never arrived whole"
            yield Finding(what, Remedy.REMOVE, path=Path(entry.path))
    for job in jobs:
        for path in (files.root / job.uuid).glob(".output-*"):
            what = f"Results of job {job.id} never arrived whole"
            yield Finding(what, Remedy.REMOVE, path=path)


def _removed(finding: Finding) -> bool:
    """Remove what a finding says is to go; whether nothing of that is left."""
    path = finding.path
    if finding.remedy is not Remedy.REMOVE or path is None:
        return True
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    return not os.path.lexists(path)
