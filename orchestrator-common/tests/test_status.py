"""States of jobs and payloads, and their transitions."""

import pytest

from job_orchestrator.common.status import (
    ACTIVE_JOB,
    FINAL_JOB,
    JOB_TRANSITIONS,
    JobStatus,
    PayloadStatus,
    TransitionRefused,
    check_transition,
    may_become,
    origins,
)

J, P = JobStatus, PayloadStatus


def test_final_job_can_only_become_cleaned_and_cleaned_is_the_last_state() -> None:
    for status in FINAL_JOB:
        assert JOB_TRANSITIONS[status] == {J.CLEANED}
    assert JOB_TRANSITIONS[J.CLEANED] == set()


def test_every_state_is_in_the_table_and_reachable() -> None:
    assert set(JOB_TRANSITIONS) == set(J)
    for status in J:
        assert status is J.QUEUED or origins(status)


def test_active_states_are_those_between_queued_and_final() -> None:
    assert set(J) - FINAL_JOB - {J.QUEUED, J.CLEANED} == ACTIVE_JOB


def test_origins_of_jobs_and_of_payloads_are_kept_apart() -> None:
    """The states are strings, which are equal where job and payload use the same name."""
    assert origins(J.KILLED) >= {J.QUEUED, J.SUBMITTED}
    assert origins(P.KILLED) == {P.PREPARED, P.RUNNING}


def test_refused_transition_names_the_job_and_both_states() -> None:
    check_transition("Job 1", J.QUEUED, J.PROCESSING)
    with pytest.raises(TransitionRefused, match="Job 1 is Completed and can't become Running"):
        check_transition("Job 1", J.COMPLETED, J.RUNNING)
    assert not may_become(P.KILLED, P.RUNNING)
