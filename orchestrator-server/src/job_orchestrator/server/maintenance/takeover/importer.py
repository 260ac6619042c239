"""Import of an installation of the original into the database and the data folder.

The rows are imported in pages. The files of a page are linked or copied and flushed before its rows
are written, so that an import can be killed at any moment: files without a row are replaced by the
next import, or removed by the next start of jo-server. Rows that are here already are compared with
the original, so that a later import takes what is new there or has changed. All functions block.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from job_orchestrator.common.errors import DomainError
from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.status import ACTIVE_JOB, JobStatus
from job_orchestrator.common.storage.durable import sync_file_system
from job_orchestrator.server.maintenance.backup import Locations
from job_orchestrator.server.maintenance.takeover.files import (
    FoundFiles,
    find_files,
    take_files,
)
from job_orchestrator.server.maintenance.takeover.record import (
    Record,
    RowRefused,
    Target,
    read_row,
    target_of,
)
from job_orchestrator.server.model import Service
from job_orchestrator.server.store.sqlite.maintenance.imports import (
    IMPORTED,
    ImportedJob,
    PresentJob,
    create_database,
    known_uuids,
    present_jobs,
    skip_ids,
    write_jobs,
)
from job_orchestrator.server.store.sqlite.maintenance.kept_jobs import Database, opened
from job_orchestrator.server.store.sqlite.maintenance.original import (
    OriginalRow,
    count_of,
    last_id_of,
    opened_original,
    pages_of,
)


def prepare_database(locations: Locations) -> None:
    """Create the database to import into, or migrate it to the current schema."""
    asyncio.run(create_database(locations.database))


class ImportFailed(DomainError):
    """The import can't go on. It can be repeated, and continues where it has stopped."""


@dataclass
class ImportReport:
    """Outcome of an import: imported jobs by state, and the number of those here already.

    ``problems`` are about jobs that were left out, or that miss something.
    """

    imported: Counter[JobStatus] = field(default_factory=Counter)
    unchanged: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """A job to import, with its files."""

    job: ImportedJob
    found: FoundFiles


@dataclass
class Importer:
    """Imports the jobs of ``original``, whose folders are below ``data`` (None: as in the rows).

    With ``dry_run`` nothing is written. ``advance`` is called with the number of rows done.
    """

    original: Path
    data: Path | None
    locations: Locations
    services: Mapping[str, Service]
    dry_run: bool = False
    now: Callable[[], float] = time.time
    report: ImportReport = field(default_factory=ImportReport)
    _waiting: Counter[str] = field(default_factory=Counter)

    def run(self, advance: Callable[[int, int], None] = lambda done, total: None) -> ImportReport:
        """Import all rows. The database must exist, and the data folder must be locked.

        Raises ``NoOriginal``, ``DatabaseUnusable``, ``ImportFailed``.
        """
        with ExitStack() as stack:
            original = stack.enter_context(opened_original(self.original))
            database: Database | None = None
            if not self.dry_run or self.locations.database.exists():
                database = stack.enter_context(opened(self.locations.database))
            total, done = count_of(original), 0
            if database is not None and not self.dry_run:
                # Before the rows: no job that is submitted here gets the id of one of them.
                skip_ids(database, last_id_of(original))
            for rows in pages_of(original):
                self._import_page(rows, database)
                done += len(rows)
                advance(done, total)
        self._report_unknown_services()
        return self.report

    def _import_page(self, rows: Sequence[OriginalRow], database: Database | None) -> None:
        records = []
        for row in rows:
            try:
                records.append(read_row(row, self.data, self.now()))
            except RowRefused as refused:
                self.report.problems.append(str(refused))
        present: Mapping[int, PresentJob] = {}
        known: dict[str, int] = {}
        if database is not None:
            present = present_jobs(database, [record.id for record in records])
            known = dict(known_uuids(database, [record.uuid for record in records]))
        plans = []
        for record in records:
            if known.setdefault(record.uuid, record.id) != record.id:
                self._problem(record, f"was left out: job {known[record.uuid]} has its folder")
            elif (plan := self._plan(record, present.get(record.id))) is not None:
                plans.append(plan)
        if database is not None and not self.dry_run and plans:
            self._write(plans, database)
        self.report.imported.update(plan.job.status for plan in plans)

    def _plan(self, record: Record, present: PresentJob | None) -> Plan | None:
        """Return what to import of a job; None if nothing, or if that is not possible."""
        target = target_of(record, self.services)
        if present is not None and not self._may_change(record, present):
            return None
        if present is not None and present.has(target.status, target.dest_id):
            self.report.unchanged += 1
            return None
        try:
            found = find_files(record)
        except OSError as error:
            self._problem(record, f"was left out: its files can't be read: {error}")
            return None
        job, problem = self._job(record, target, found)
        if problem:
            self._problem(record, f"is {job.status}: {problem}")
        if present is not None and present.has(job.status, job.dest_id):
            self.report.unchanged += 1
            return None
        if job.status in ACTIVE_JOB | {JobStatus.QUEUED} and job.service not in self.services:
            self._waiting[job.service] += 1
        return Plan(job, found)

    def _may_change(self, record: Record, present: PresentJob) -> bool:
        """Return whether the row that is here is the job's, as an import has left it."""
        if present.uuid != record.uuid:
            self._problem(record, "was left out: another job has its id here")
            return False
        if present.as_imported:
            return True
        if record.status.has_ended and not present.status.has_ended:
            self._problem(record, f"is {record.status} there; here it is {present.status}")
        self.report.unchanged += 1
        return False

    def _job(self, record: Record, target: Target, found: FoundFiles) -> tuple[ImportedJob, str]:
        """Return the row, and what the user has to know of it."""
        status, message, problem = target.status, target.message, found.results_problem
        if status is JobStatus.COMPLETED and found.results_problem:
            status = JobStatus.FAILED if found.results_exist else JobStatus.CLEANED
            message = f"{IMPORTED}, where it was Completed; {problem}"
        elif status is JobStatus.QUEUED and found.problem:
            status, problem = JobStatus.FAILED, found.problem
            message = f"{IMPORTED}, where it was {record.status}; it can't be run: {problem}"
        has_ended = status.has_ended
        ended_at = max(record.created_at, min(found.results_at, self.now()))
        keeps_files = status is not JobStatus.CLEANED
        job = ImportedJob(
            id=record.id,
            uuid=record.uuid,
            user_id=record.user_id,
            service=record.service,
            status=status,
            message=message,
            attempt=0 if status is JobStatus.QUEUED else 1,
            client_url=target.client,
            dest_id=target.dest_id,
            has_output=status is JobStatus.COMPLETED,
            created_at=record.created_at,
            # An Unknown job is given up some time after it became Unknown.
            changed_at=ended_at if has_ended or status is JobStatus.QUEUED else self.now(),
            ended_at=ended_at if has_ended else None,
            input_bytes=found.input_bytes if keeps_files else None,
            output_bytes=found.results_bytes if status is JobStatus.COMPLETED else None,
        )
        return job, problem if keeps_files or target.status is not status else ""

    def _write(self, plans: Sequence[Plan], database: Database) -> None:
        """Take the files of a page, flush them, and write its rows."""
        files = self.locations.files
        try:
            for plan in plans:
                if plan.job.status is not JobStatus.CLEANED:
                    take_files(files, plan.job.uuid, plan.found, plan.job.attempt)
                    reach(Point.IMPORT_FILES_TAKEN)
            sync_file_system(files.root)
        except OSError as error:
            raise ImportFailed(
                f"The import stopped: {error.filename or files.root}: {error.strerror}."
                " Repeat it to continue"
            ) from error
        write_jobs(database, [plan.job for plan in plans])
        reach(Point.IMPORT_ROWS_WRITTEN)
        for plan in plans:
            if plan.job.status is JobStatus.CLEANED:
                files.discard(plan.job.uuid)

    def _problem(self, record: Record, what: str) -> None:
        self.report.problems.append(f"Job {record.id} {what}")

    def _report_unknown_services(self) -> None:
        for service, count in sorted(self._waiting.items()):
            self.report.problems.append(
                f"{count} {'job waits' if count == 1 else 'jobs wait'} for the service {service!r},"
                " which is not configured"
            )
