"""Export of one job's files for an administrator, wherever they are stored. All functions block."""

import shutil
from pathlib import Path

from job_orchestrator.common.errors import BadRequest, DomainError
from job_orchestrator.common.protocol.small_files import decode_files
from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.files.folder import FolderFiles
from job_orchestrator.server.maintenance.backup import Locations
from job_orchestrator.server.store.sqlite.maintenance.kept_jobs import (
    KeptJob,
    inline_inputs,
    inline_result,
    kept_job,
    opened,
)

INPUT = "input"
RESULTS = "results.zip"


class ExportFailed(DomainError):
    """The files of the job could not be exported."""


def export_job(locations: Locations, job_id: int, folder: Path) -> list[str]:
    """Write inputs and results of a job to ``folder``, which must not exist.

    Returns the names of what was written. Raises ``ExportFailed``, ``DatabaseUnusable``.
    """
    with opened(locations.database) as connection:
        job = kept_job(connection, job_id)
        if job is None:
            raise ExportFailed(f"There is no job {job_id}")
        if job.status is JobStatus.CLEANED:
            raise ExportFailed(f"Job {job_id} is Cleaned: its files were removed")
        inputs, result = inline_inputs(connection, job), inline_result(connection, job)
    try:
        # Other users of this machine must not read what users have uploaded.
        folder.mkdir(mode=0o700)
        _write_inputs(locations.files, job, inputs, folder / INPUT)
        if not job.has_output:
            return [INPUT]
        if result is None:
            shutil.copyfile(locations.files.result_path(job.uuid, job.attempt), folder / RESULTS)
        else:
            (folder / RESULTS).write_bytes(result)
    except FileExistsError as error:
        raise ExportFailed(f"{folder} already exists; each export needs a new folder") from error
    except (OSError, shutil.Error, BadRequest) as error:
        raise ExportFailed(f"The files of job {job_id} can't be exported: {error}") from error
    return [INPUT, RESULTS]


def _write_inputs(files: FolderFiles, job: KeptJob, block: bytes | None, target: Path) -> None:
    if block is None:
        shutil.copytree(files.input_folder(job.inputs_uuid), target)
        return
    target.mkdir()
    for file in decode_files(block):
        path = target / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
