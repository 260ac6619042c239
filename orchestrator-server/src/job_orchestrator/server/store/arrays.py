"""Contract of the arrays of jobs: a part of the contract of the job store.

An array has one set of files, and tasks, which are jobs of their own. The id of the array is that
of its first task; the ids of its tasks follow each other, in the order of their indexes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.model import Job, JobOptions
from job_orchestrator.server.store.limits import UserLimits


@dataclass(frozen=True)
class ArrayRequest:
    """Tasks of a new array: their ``indexes``; at most ``max_active`` are active."""

    indexes: Sequence[int]
    max_active: int


@dataclass(frozen=True)
class JobArray:
    """An array. Its files are stored under ``uuid`` as long as tasks are ``kept`` (not Cleaned).

    ``unended`` counts the tasks that have not ended.
    """

    id: int
    uuid: str
    user_id: int
    size: int
    max_active: int
    input_bytes: int
    unended: int
    kept: int

    @property
    def last(self) -> int:
        """Id of the last task."""
        return self.id + self.size - 1


class JobArrays(Protocol):
    """Creates and reads arrays."""

    async def create(
        self,
        uuid: str,
        user_id: int,
        service: str,
        options: JobOptions,
        request: ArrayRequest,
        *,
        input_bytes: int,
        inputs: bytes | None,
        limits: UserLimits,
    ) -> tuple[Job, bool]:
        """Add the tasks of an array in one transaction: all of them or none.

        Its files count once for the limits, each of its tasks counts as a job. Returns the first
        task and True; or the job, or the first task of the array, that has the same idempotency
        key, and False. Otherwise as ``JobStore.create``.
        """

    async def get(self, array_id: int) -> JobArray:
        """Return an array. Raises ``ArrayNotFound``."""

    async def request_kill(self, array_id: int) -> None:
        """Record that all tasks that have not ended must be terminated. Durable."""

    async def kill_queued(self, array_id: int, limit: int) -> Sequence[Job]:
        """End at most ``limit`` queued tasks as Killed, the last ones first; return them."""

    async def counts(self, array_id: int) -> Mapping[JobStatus, int]:
        """Count the tasks of an array by status. Counts of 0 are left out."""

    async def tasks(
        self, array: JobArray, after: int, limit: int, *, unended: bool = False
    ) -> Sequence[Job]:
        """Return at most ``limit`` tasks with ids above ``after``, in the order of their ids.

        With ``unended``, only those that have not ended.
        """
