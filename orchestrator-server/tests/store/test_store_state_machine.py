"""Contract of ``JobStore``: any order of operations and restarts agrees with a model.

``FUZZ_EXAMPLES`` (``make fuzz``) sets the number of examples.
"""

import asyncio
import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from job_orchestrator.common.status import (
    ACTIVE_JOB,
    FINAL_JOB,
    JOB_TRANSITIONS,
    JobStatus,
    TransitionRefused,
    origins,
)
from job_orchestrator.server.errors import InvalidSubmission
from job_orchestrator.server.model import Job, JobOptions
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.store.queue import Offer, WaitingUser
from stores import CLIENT, IMPLEMENTATIONS, Clock, Implementation, stored_output

R = TypeVar("R")

REACHED = [status for status in JobStatus if status is not JobStatus.PROCESSING]
"""States that a transition leads to. Only a claim leads to Processing."""

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "50"))


class StoreMachine(RuleBasedStateMachine):
    """A store, and a model of the status of each job."""

    implementation: ClassVar[Implementation]

    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        # Each commit is flushed, which takes no time in memory.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
        self._folder = tempfile.TemporaryDirectory(dir=memory)
        self._exits = contextlib.AsyncExitStack()
        self._clock = Clock(1000.0)
        self._status: dict[int, JobStatus] = {}
        self._notified: dict[int, Job] = {}
        self._keys: dict[tuple[int, str], int] = {}
        self._with_callback: set[int] = set()
        self._users: dict[int, int] = {}
        self._killed: set[int] = set()
        # The jobs that a queued job waits for, and whether it needs their success.
        self._waits: dict[int, dict[int, bool]] = {}
        self._uuids = 0
        self._store: JobStore

    def _run(self, work: Coroutine[Any, Any, R]) -> R:
        return self._loop.run_until_complete(work)

    @initialize()
    def start(self) -> None:
        """Open the store."""
        opened = self.implementation.open(Path(self._folder.name), self._clock)
        self._store = self._run(self._exits.enter_async_context(opened))
        self._store.subscribe(lambda job: self._notified.update({job.id: job}))

    @rule()
    def restart(self) -> None:
        """Close the store and open it again."""
        self._run(self._exits.aclose())
        self._exits = contextlib.AsyncExitStack()
        self.start()

    @rule(
        target=jobs,
        user=st.integers(1, 2),
        key=st.none() | st.sampled_from("kl"),
        url=st.none() | st.just("http://x/"),
        before=st.lists(jobs, max_size=3, unique=True),
        needed=st.booleans(),
    )
    def create(
        self, user: int, key: str | None, url: str | None, before: list[int], needed: bool
    ) -> Any:
        """Create a job that waits for others, or find the job that has the key."""
        self._uuids += 1
        options = JobOptions(
            idempotency_key=key,
            callback_url=url,
            after_success=tuple(before) if needed else (),
            after_end=() if needed else tuple(before),
        )
        uuid = f"u{self._uuids}"
        try:
            job = self._run(self._store.create(uuid, user, "s", options, input_bytes=10))
        except InvalidSubmission:
            assert any(self._users[each] != user for each in before)
            return multiple()
        if job.uuid != uuid:
            assert self._keys[user, key or ""] == job.id
            assert self._status[job.id] is not JobStatus.CLEANED
            return multiple()
        if key is not None:
            known = self._keys.get((user, key))
            assert known is None or self._status[known] is JobStatus.CLEANED
            self._keys[user, key] = job.id
        assert all(self._users[each] == user for each in before)
        if url is not None:
            self._with_callback.add(job.id)
        self._users[job.id] = user
        self._status[job.id] = JobStatus.QUEUED
        statuses = {each: self._status[each] for each in before}
        if needed and any(
            status.has_ended and status is not JobStatus.COMPLETED for status in statuses.values()
        ):
            self._status[job.id] = JobStatus.FAILED
        self._waits[job.id] = {
            each: needed for each, status in statuses.items() if not status.has_ended
        }
        return job.id

    def _reached(self, job_id: int, status: JobStatus) -> None:
        """Record a status, and what follows from an end for the jobs that wait for it."""
        self._status[job_id] = status
        if status not in FINAL_JOB:
            return
        for other, waits in self._waits.items():
            fails = waits.pop(job_id, False) and status is not JobStatus.COMPLETED
            if fails and self._status[other] is JobStatus.QUEUED:
                is_killed = other in self._killed
                self._reached(other, JobStatus.KILLED if is_killed else JobStatus.FAILED)

    @rule(slots=st.integers(1, 3))
    def claim(self, slots: int) -> None:
        """Claim as many jobs as there are slots."""

        def decide(
            active: int, slots: int, waiting: Sequence[WaitingUser], _: object = None
        ) -> Sequence[int]:
            assert active == sum(status in ACTIVE_JOB for status in self._status.values())
            return [user.user_id for user in waiting for _ in range(user.queued)]

        offers = {"s": Offer(1000, [CLIENT] * slots, decide)}
        for claim in self._run(self._store.claim(offers)).values():
            for job in claim.jobs:
                assert self._status[job.id] is JobStatus.QUEUED
                assert not self._waits[job.id]
                self._status[job.id] = JobStatus.PROCESSING

    @rule(job_id=jobs, wanted=st.sampled_from(REACHED), late=st.booleans(), output=st.booleans())
    def transition(self, job_id: int, wanted: JobStatus, late: bool, output: bool) -> None:
        """Change the status; a ``late`` change belongs to an earlier attempt."""
        job = self._run(self._store.get(job_id))
        before = self._status[job_id]
        if late:
            job = dataclasses.replace(job, attempt=job.attempt - 1)
        allowed = before in origins(wanted) and not late
        # A queued job fails only with a job that it waits for.
        allowed = allowed and (before, wanted) != (JobStatus.QUEUED, JobStatus.FAILED)
        try:
            changed = self._run(
                self._store.transition(
                    job, wanted, "why", output=stored_output(5) if output else None
                )
            )
        except TransitionRefused as refused:
            assert (allowed, refused.current) == (False, before)  # noqa: PT017
        else:
            assert allowed
            assert changed.status is wanted
            self._reached(job_id, wanted)

    @rule(job_id=jobs, counts=st.booleans(), may_still_run=st.booleans())
    def requeue(self, job_id: int, counts: bool, may_still_run: bool) -> None:
        """Return the job to the queue."""
        job = self._run(self._store.get(job_id))
        before = self._status[job_id]
        try:
            changed = self._run(
                self._store.requeue(
                    job,
                    "lost",
                    delay_s=0,
                    max_attempts=2,
                    counts=counts,
                    may_still_run=may_still_run,
                )
            )
        except TransitionRefused:
            assert before not in origins(JobStatus.QUEUED)
            return
        assert before in origins(JobStatus.QUEUED)
        expected = JobStatus.QUEUED
        if job.kill_requested:
            expected = JobStatus.KILLED
        elif counts and job.failures + 1 >= 2:
            expected = JobStatus.FAILED
        assert changed.status is expected
        self._reached(job_id, expected)

    @rule(job_id=jobs)
    def request_kill(self, job_id: int) -> None:
        """Request the termination of the job."""
        job = self._run(self._store.request_kill(job_id))
        assert job.status is self._status[job_id]
        if job.status in origins(JobStatus.KILLED):
            assert job.kill_requested
            self._killed.add(job_id)

    @rule()
    def client_lost(self) -> None:
        """Lose the client."""
        for job in self._run(self._store.client_lost(CLIENT, "gone")):
            assert self._status[job.id] in origins(JobStatus.UNKNOWN)
            self._status[job.id] = JobStatus.UNKNOWN

    @rule(seconds=st.floats(0, 100))
    def time_passes(self, seconds: float) -> None:
        """Move the clock."""
        self._clock.at += seconds

    @invariant()
    def store_and_model_agree(self) -> None:
        """Compare jobs, notifications, histories and the outbox with the model."""
        if self._status:
            self._run(self._compare())
            assert self.implementation.problems(Path(self._folder.name)) == []

    async def _compare(self) -> None:
        for job_id, status in self._status.items():
            job = await self._store.get(job_id)
            assert job.status is status
            if status is JobStatus.QUEUED:
                assert job.open_dependencies == len(self._waits[job_id])
            assert (job.ended_at is not None) is status.has_ended
            assert job_id not in self._notified or self._notified[job_id].status is status
            created, *changes = await self._store.lists.history(job)
            assert (created.before, created.to) == (None, JobStatus.QUEUED)
            reached = created.to
            for change in changes:
                assert change.before is reached
                assert change.to in JOB_TRANSITIONS[reached]
                reached = change.to
            assert reached is status
        ended = {job_id for job_id, status in self._status.items() if status.has_ended}
        due = {each.job.id for each in await self._store.outbox.due(1000)}
        assert due == ended & self._with_callback

    def teardown(self) -> None:
        """Close the store."""
        self._run(self._exits.aclose())
        assert self.implementation.problems(Path(self._folder.name)) == []
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        self._folder.cleanup()


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_any_order_of_operations_agrees_with_the_model(name: str) -> None:
    machine = type("StoreMachine", (StoreMachine,), {"implementation": IMPLEMENTATIONS[name]})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=max(EXAMPLES // 5, 1),
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
