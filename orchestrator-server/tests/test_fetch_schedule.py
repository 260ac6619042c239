"""Schedule of fetches that no event announces."""

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.clients.base import ClientTransport
from job_orchestrator.server.clients.registry import Client
from job_orchestrator.server.dispatch.fetch_schedule import FetchSchedule
from job_orchestrator.server.tuning import Tuning
from sample_job import JOB

TUNING = Tuning(fetch_retry_s=5.0, reconcile_after_s=60.0, reconcile_interval_s=2.0)
FIRST, SECOND = (replace(JOB, id=id_, status=JobStatus.RUNNING) for id_ in (1, 2))


class Clock:
    """Monotonic clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Create a clock."""
    return Clock()


@pytest.fixture
def schedule(clock: Clock) -> FetchSchedule:
    """Create an empty schedule."""
    return FetchSchedule(TUNING, clock)


@pytest.fixture
def client() -> Client:
    """Create a client that pushes events and has two jobs."""
    # The schedule reads nothing but the name of the transport.
    transport = cast(ClientTransport, SimpleNamespace(name="c"))
    return Client(transport, pushes=True, jobs={1: FIRST, 2: SECOND})


def test_job_of_a_client_without_events_is_due_in_every_pass_except_while_it_waits_for_a_retry(
    schedule: FetchSchedule, client: Client, clock: Clock
) -> None:
    client.pushes = False
    schedule.begin(FIRST)
    assert schedule.due(client) == [1, 2]
    schedule.retry(FIRST, OSError("no"))
    assert schedule.due(client) == [2]
    clock.now += 5.0
    assert schedule.due(client) == [1, 2]


def test_job_without_news_is_due_after_a_while_and_one_at_a_time(
    schedule: FetchSchedule, client: Client, clock: Clock
) -> None:
    schedule.postpone_reconcile(FIRST)
    clock.now += 1.0
    schedule.postpone_reconcile(SECOND)
    assert schedule.due(client) == []
    clock.now += 60.0
    assert schedule.due(client) == [1]
    schedule.begin(FIRST)
    assert schedule.due(client) == []
    clock.now += 2.0
    assert schedule.due(client) == [2]


def test_failed_fetch_is_due_again_after_its_delay(
    schedule: FetchSchedule, client: Client, clock: Clock
) -> None:
    schedule.begin(FIRST)
    schedule.begin(SECOND)
    schedule.retry(FIRST, OSError("no"))
    clock.now += 4.9
    assert schedule.due(client) == []
    clock.now += 0.1
    assert schedule.due(client) == [1]
    schedule.begin(FIRST)
    assert schedule.due(client) == []


@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.QUEUED])
def test_job_that_no_client_has_any_more_is_not_retried(
    schedule: FetchSchedule, client: Client, clock: Clock, status: JobStatus
) -> None:
    for each in (FIRST, SECOND):
        schedule.begin(each)
    schedule.retry(SECOND, OSError("no"))
    schedule.forget(SECOND)
    del client.jobs[SECOND.id]  # as the registry does
    schedule.retry(replace(FIRST, status=status), OSError("no"))
    clock.now += 5.0
    assert schedule.due(client) == []
