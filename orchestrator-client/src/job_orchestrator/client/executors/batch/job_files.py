"""Files of the batch executor: job scripts in the workspaces, and the marks of the jobs."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from job_orchestrator.client.executors.base import RunId, RunRequest
from job_orchestrator.client.executors.batch.job_script import (
    JOB_LOG,
    JOB_SCRIPT,
    TAKEN,
    job_script,
)
from job_orchestrator.client.executors.batch.marks import Mark, Marks
from job_orchestrator.client.executors.batch.scheduler import BatchJob
from job_orchestrator.client.workspace.layout import Workspaces


@dataclass(frozen=True)
class JobFiles:
    """Files in the data folder that the nodes share. Methods block: call them in a thread.

    ``environment`` is what every script sees.
    """

    workspaces: Workspaces
    environment: Mapping[str, str]

    @cached_property
    def marks(self) -> Marks:
        """The marks of all jobs."""
        return Marks(self.workspaces.data_path / "marks")

    @cached_property
    def prefix(self) -> str:
        """Beginning of the names of jobs: a user may have jobs of several clients."""
        digest = hashlib.sha256(bytes(self.workspaces.data_path)).hexdigest()
        return f"jo-{digest[:8]}-"

    def name(self, run_id: RunId) -> str:
        """Return the name of the job of a run."""
        return self.prefix + run_id

    def job(self, request: RunRequest, margin_s: float) -> BatchJob:
        """Return the job of a run. ``margin_s`` is added to the time limit of the payload."""
        root = self.workspaces.of(request.run_id).root
        limit_s = request.time_limit_s
        return BatchJob(
            self.name(request.run_id),
            root / JOB_SCRIPT,
            root / JOB_LOG,
            root,
            None if limit_s is None else limit_s + margin_s,
            request.share.amounts,
        )

    def write_script(self, run_id: RunId) -> bool:
        """Write the job script; return True if it was there: the job may have been submitted."""
        was_there = self.has_script(run_id)
        workspace = self.workspaces.of(run_id)
        text = job_script(workspace, self.name(run_id), self.marks.folder, self.environment)
        (workspace.root / JOB_SCRIPT).write_text(text)
        return was_there

    def remove_script(self, run_id: RunId) -> None:
        """Record that the job was not submitted."""
        (self.workspaces.of(run_id).root / JOB_SCRIPT).unlink(missing_ok=True)

    def has_script(self, run_id: RunId) -> bool:
        """Return True if the job of the run was, or may have been, submitted."""
        return (self.workspaces.of(run_id).root / JOB_SCRIPT).exists()

    def is_taken(self, run_id: RunId) -> bool:
        """Return True if the run has begun, or must not begin."""
        return (self.workspaces.of(run_id).root / TAKEN).exists()

    def take(self, run_id: RunId) -> bool:
        """Keep a run from beginning; False if it has begun, or its folder is gone."""
        try:
            (self.workspaces.of(run_id).root / TAKEN).mkdir()
        except OSError:
            return False
        return True

    def submitted(
        self, run_ids: Collection[RunId], known_names: Collection[str] | None
    ) -> list[RunId]:
        """Return those of the runs that have begun, or whose jobs the batch system may have.

        ``known_names`` are the jobs that it has; None: it does not answer.
        """
        return [
            run_id
            for run_id in run_ids
            if self.has_script(run_id)
            and (known_names is None or self.name(run_id) in known_names or self.is_taken(run_id))
        ]

    def news(self, forgotten: Sequence[str], followed: Mapping[str, bool]) -> dict[str, Mark]:
        """Remove the marks of ``forgotten`` jobs, and return the news of others (``Marks``)."""
        self.marks.remove(forgotten)
        return self.marks.news(followed) if followed else {}
