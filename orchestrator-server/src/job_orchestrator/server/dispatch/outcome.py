"""Consequences of a failed attempt for its job and its client: one table, and one way to give up.

The reasons are in ADR 6 (docs/adr/0006-how-a-failed-dispatch-is-judged.md).
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from job_orchestrator.common.errors import StorageFull
from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.status import JobStatus, TransitionRefused
from job_orchestrator.server.clients.registry import ClientRegistry
from job_orchestrator.server.errors import (
    ClientBusy,
    ClientDisconnected,
    ClientError,
    ClientRefused,
    ClientUnreachable,
    NeededResultsUnusable,
    PayloadGivenBack,
    PayloadLost,
)
from job_orchestrator.server.jobs.reasons import with_details
from job_orchestrator.server.model import Job, Service
from job_orchestrator.server.store.base import JobStore

logger = logging.getLogger(__name__)

WAITS_FOR_SLOT = "Waits for a free slot on a machine"
"""Reason of the state Submitted."""

RUNS = "run.sh is executing"
"""Reason of the state Running, until the client gives another one."""


class ClientNotConfigured(ClientError):
    """The client of an interrupted dispatch is missing in the settings of this start."""

    def __init__(self, name: str | None) -> None:
        super().__init__(f"{name} is no longer configured")


class ClientSilent(ClientError):
    """The client of a dispatched job could not be reached for longer than ``LOST_AFTER``."""


@dataclass(frozen=True)
class AttemptFailure:
    """The consequences of a failed attempt.

    - ``client_failed``: the client gets no new jobs for a while (back-off).
    - ``counts``: towards ``SERVICE_<NAME>_MAX_ATTEMPTS``.
    - ``may_still_run``: the client may have the payload, so the attempt is recorded as abandoned.
    - ``waits``: the job is not tried before the client's back-off has passed.
    - ``final``: a repeat would not help, so the job is Failed.
    - ``text``: the reason for the job's user, in words that users know.
    """

    client_failed: bool
    counts: bool
    may_still_run: bool
    text: str
    waits: bool = False
    final: bool = False


UNEXPECTED = AttemptFailure(
    client_failed=True,
    counts=True,
    may_still_run=True,
    text="It could not be sent to a machine",
)
"""A defect of jo-server: the job must not be tried for ever, nor its client be kept on trial."""

FAILURES: Mapping[type[BaseException], AttemptFailure] = {
    # The client has checked the files and will always refuse them.
    ClientRefused: AttemptFailure(
        client_failed=False,
        counts=True,
        may_still_run=False,
        text="The machine refused its files",
        final=True,
    ),
    # Draining, its disk is full, or it does not admit this server: no fault of the job.
    ClientBusy: AttemptFailure(
        client_failed=True,
        counts=False,
        may_still_run=False,
        text="The machine that should run it accepts no jobs at present",
        waits=True,
    ),
    # The request was never sent.
    ClientUnreachable: AttemptFailure(
        client_failed=True,
        counts=True,
        may_still_run=False,
        text="The machine that should run it could not be reached",
    ),
    # Its connection broke in this moment. It gets no further job before it is connected again.
    ClientDisconnected: AttemptFailure(
        client_failed=True,
        counts=False,
        may_still_run=False,
        text="The machine that should run it could not be reached",
    ),
    # The client works, but has restarted or removed the payload.
    PayloadLost: AttemptFailure(
        client_failed=False,
        counts=True,
        may_still_run=False,
        text="The machine it was on was restarted",
    ),
    # Its script has not begun, and the client takes no jobs until it works again; or the batch
    # system has taken its node away.
    PayloadGivenBack: AttemptFailure(
        client_failed=False,
        counts=False,
        may_still_run=False,
        text="The machine it was on could not start or continue it",
    ),
    # An administrator has changed the settings: no fault of the job.
    ClientNotConfigured: AttemptFailure(
        client_failed=False,
        counts=False,
        may_still_run=True,
        text="The machine it was on is no longer used",
    ),
    # The answer was lost, made no sense, or there is none.
    ClientError: AttemptFailure(
        client_failed=True,
        counts=True,
        may_still_run=True,
        text="The machine it was on failed or could not be reached",
    ),
    # The job needs these results, and they will not come back.
    NeededResultsUnusable: AttemptFailure(
        client_failed=False,
        counts=True,
        may_still_run=False,
        final=True,
        text="The results of a job before it can't be used",
    ),
    # There is no room to unpack the results of other jobs. Room comes back.
    StorageFull: AttemptFailure(
        client_failed=False,
        counts=False,
        may_still_run=False,
        text="The disk of the server is full",
    ),
    # The job's files are on the server's own disk.
    OSError: AttemptFailure(
        client_failed=False,
        counts=True,
        may_still_run=False,
        final=True,
        text="Its files can't be read on the server",
    ),
    Exception: UNEXPECTED,
}
"""Consequences by class of the error; the first class of its ``__mro__`` that is listed counts."""


def failure_of(error: Exception) -> AttemptFailure:
    """Return the consequences of ``error``."""
    return next(FAILURES[kind] for kind in type(error).__mro__ if kind in FAILURES)


class FailedAttempts:
    """Gives up attempts that failed: their jobs are queued again, or Failed after the last one."""

    def __init__(
        self, store: JobStore, registry: ClientRegistry, services: Mapping[str, Service]
    ) -> None:
        self._store = store
        self._registry = registry
        self._services = services

    async def give_up(
        self, job: Job, failure: AttemptFailure, error: Exception, *, delay_s: float = 0.0
    ) -> bool:
        """Give up the present attempt of ``job``; its next one starts after ``delay_s``.

        Returns False, without any effect, if the job is no longer in this attempt.
        """
        key, client = job.key, self._registry.get(job.client)
        service = self._services.get(job.service)
        max_attempts = service.max_attempts if service else 1
        reason = reason_of(job, failure, error, max_attempts)
        try:
            if failure.final:
                job = await self._store.transition(job, JobStatus.FAILED, reason)
            else:
                job = await self._store.requeue(
                    job,
                    reason,
                    delay_s=delay_s,
                    max_attempts=max_attempts,
                    counts=failure.counts,
                    may_still_run=failure.may_still_run,
                )
        except TransitionRefused as refused:
            logger.debug("Job %d: %s", job.id, refused)
            return False
        if failure.may_still_run and client is not None:
            client.abandoned.add(key)
        logger.warning("Job %d is %s after attempt %d: %s", job.id, job.status, job.attempt, error)
        return True

    async def give_up_dispatched(self, job: Job, error: ClientError) -> None:
        """Give up an attempt that its client had accepted."""
        failure = failure_of(error)
        client = self._registry.get(job.client)
        if client is not None:
            if failure.client_failed:
                self._registry.mark_failed(client, str(error))
            if client.draining and not isinstance(error, PayloadGivenBack):
                # An administrator stops the client; this is no failure of the job.
                failure = replace(failure, counts=False, text="The machine it was on was stopped")
        if await self.give_up(job, failure, error):
            reach(Point.SERVER_JOB_LOST)


def reason_of(job: Job, failure: AttemptFailure, error: Exception, max_attempts: int) -> str:
    """Return the reason for the state of ``job`` after a failed attempt, as it is stored."""
    text, failures = failure.text, job.failures + 1
    if isinstance(error, ClientRefused) and error.reason:
        text = f"{text}: {error.reason}"
    elif isinstance(error, NeededResultsUnusable):
        return str(error)
    elif failure.final:
        pass
    elif not failure.counts or failures < max_attempts:
        again = "run" if job.started_at is not None else "tried"
        text = f"{text}; it is {again} again"
    elif failures > 1:
        text = f"{text}. It has been tried {failures} times, and is not tried again"
    else:
        text = f"{text}. It is not tried again"
    return with_details(text, str(error))
