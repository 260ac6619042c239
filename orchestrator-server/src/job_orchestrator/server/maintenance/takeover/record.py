"""Meaning of a row of the original: its values, checked, and the state that the job gets here."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from job_orchestrator.common.errors import DomainError
from job_orchestrator.common.status import DISPATCHED_JOB, JobStatus
from job_orchestrator.server.model import MAX_JOB_ID, MAX_USER_ID, MIN_USER_ID, Service
from job_orchestrator.server.store.sqlite.maintenance.imports import IMPORTED
from job_orchestrator.server.store.sqlite.maintenance.original import OriginalRow

_STATUSES = {str(status).lower(): status for status in JobStatus}
_MAX_PAYLOAD_ID = 2**32 - 1


class RowRefused(DomainError):
    """The row makes no sense, and is left out."""


@dataclass(frozen=True)
class Record:
    """A job of the original. ``folder`` has its files, ``created_at`` is in seconds."""

    id: int
    uuid: str
    user_id: int
    service: str
    status: JobStatus
    folder: Path
    dest_id: int | None
    created_at: float


class Target(NamedTuple):
    """State of an imported job, if nothing is wrong with its files."""

    status: JobStatus
    message: str
    client: str | None = None
    dest_id: int | None = None


def read_row(row: OriginalRow, data: Path | None, now: float) -> Record:
    """Check a row. Raises ``RowRefused``.

    ``data`` is where the folders of jobs are now; None: where the row says.
    """
    job_id, user_id = row.id, row.user_id
    if not isinstance(job_id, int) or not 1 <= job_id <= MAX_JOB_ID:
        raise RowRefused(f"The row with the id {row.id!r} was left out: it is no id of a job")
    if not isinstance(user_id, int) or not MIN_USER_ID <= user_id <= MAX_USER_ID:
        raise RowRefused(f"Job {job_id} was left out: its user is {user_id!r}")
    status = _STATUSES.get(str(row.status).lower())
    if status is None:
        raise RowRefused(f"Job {job_id} was left out: its state is {row.status!r}")
    if not isinstance(row.service, str) or not row.service:
        raise RowRefused(f"Job {job_id} was left out: its service is {row.service!r}")
    folder = Path(str(row.loc))
    if not _is_uuid(folder.name):
        raise RowRefused(f"Job {job_id} was left out: {row.loc!r} is no folder of a job")
    dest_id = row.dest_id
    is_payload = isinstance(dest_id, int) and 0 <= dest_id <= _MAX_PAYLOAD_ID
    return Record(
        id=job_id,
        uuid=folder.name,
        user_id=user_id,
        service=row.service.lower(),
        status=status,
        folder=folder if data is None else data / folder.name,
        dest_id=dest_id if isinstance(dest_id, int) and is_payload else None,
        created_at=_seconds(row.created_at, now),
    )


def target_of(record: Record, services: Mapping[str, Service]) -> Target:
    """Return the state that a job gets here.

    A job that a client may have is asked for there, if the service has exactly one client: the
    original does not record which client has the job. Otherwise it is queued again.
    """
    status = record.status
    if status is JobStatus.COMPLETED:
        return Target(status, IMPORTED)
    if status is JobStatus.CLEANED:
        return Target(status, f"{IMPORTED}, which had removed its files")
    if status.has_ended:
        return Target(status, f"{IMPORTED}, where it was {status}; it has not recorded why")
    service = services.get(record.service)
    if status in DISPATCHED_JOB and record.dest_id is not None:
        if service is not None and len(service.clients) == 1:
            name = service.client_names[0]
            return Target(status, f"{IMPORTED}, where it was {status}", name, record.dest_id)
        return Target(JobStatus.QUEUED, f"{IMPORTED}, where it was {status}; it is run again")
    return Target(JobStatus.QUEUED, IMPORTED)


def _seconds(created_at: object, now: float) -> float:
    """Return a time of SQLite (UTC) as seconds since the epoch; ``now`` if it is unusable."""
    try:
        moment = datetime.fromisoformat(str(created_at))
        seconds = moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError):
        return now
    return min(max(seconds, 0.0), now)


def _is_uuid(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False
