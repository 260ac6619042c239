"""The table of failed attempts against the decision that it implements."""

from dataclasses import replace

import pytest

from job_orchestrator.server.dispatch.outcome import (
    FAILURES,
    ClientNotConfigured,
    ClientSilent,
    failure_of,
    reason_of,
)
from job_orchestrator.server.errors import (
    AccessRefused,
    AnswerLost,
    ClientBusy,
    ClientError,
    ClientFailed,
    ClientRefused,
    ClientTimeout,
    ClientUnreachable,
    PayloadGivenBack,
    PayloadLost,
    TokenRefused,
)
from job_orchestrator.server.jobs.reasons import reason_for
from sample_job import JOB


@pytest.mark.parametrize(
    ("error", "listed_as"),
    [
        (ClientTimeout("x"), ClientError),
        (AnswerLost("x"), ClientError),
        (ClientFailed("x"), ClientError),
        (ClientSilent("x"), ClientError),
        (AccessRefused("x"), ClientBusy),
        (TokenRefused("x"), ClientBusy),
        (PayloadLost("x"), PayloadLost),
        (FileNotFoundError("x"), OSError),
        (ValueError("x"), Exception),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_failure_of_a_subclass_is_that_of_its_nearest_listed_class(
    error: Exception, listed_as: type[Exception]
) -> None:
    assert failure_of(error) is FAILURES[listed_as]


@pytest.mark.parametrize(
    "error", [ClientBusy("x"), ClientNotConfigured("x"), PayloadGivenBack("x")]
)
def test_attempt_without_a_fault_of_the_job_does_not_count(error: Exception) -> None:
    assert not failure_of(error).counts


@pytest.mark.parametrize("error", [ClientUnreachable("x"), ClientFailed("x"), PayloadLost("x")])
def test_attempt_that_failed_or_lost_the_job_counts(error: Exception) -> None:
    assert failure_of(error).counts


@pytest.mark.parametrize("error", [ClientRefused("x"), OSError("x")])
def test_failure_that_a_repeat_can_not_mend_is_final_and_not_the_clients(error: Exception) -> None:
    failure = failure_of(error)
    assert failure.final
    assert not failure.client_failed


def test_only_an_attempt_that_may_have_reached_its_client_is_recorded_as_abandoned() -> None:
    assert failure_of(AnswerLost("x")).may_still_run
    assert not failure_of(ClientUnreachable("x")).may_still_run
    assert not failure_of(ClientBusy("x")).may_still_run


@pytest.mark.parametrize(
    ("error", "failures", "ran", "expected"),
    [
        (PayloadLost("x"), 0, True, "The machine it was on was restarted; it is run again"),
        (
            ClientUnreachable("x"),
            1,
            False,
            "The machine that should run it could not be reached; it is tried again",
        ),
        (
            PayloadLost("x"),
            2,
            True,
            "The machine it was on was restarted. "
            "It has been tried 3 times, and is not tried again",
        ),
        (
            ClientBusy("x"),
            2,
            False,
            "The machine that should run it accepts no jobs at present; it is tried again",
        ),
        (ClientRefused("x", "Too large"), 0, False, "The machine refused its files: Too large"),
        (OSError("x"), 0, False, "Its files can't be read on the server"),
    ],
)
def test_reason_for_users_is_in_their_words_and_keeps_the_error_for_administrators(
    error: Exception, failures: int, ran: bool, expected: str
) -> None:
    job = replace(JOB, failures=failures, started_at=1.0 if ran else None)
    stored = reason_of(job, failure_of(error), error, 3)
    assert reason_for(stored, details=False) == expected
    assert reason_for(stored, details=True) == f"{expected} (x)"


def test_reason_without_details_is_the_same_for_all() -> None:
    for details in (True, False):
        assert reason_for("run.sh exited with code 7", details=details) == (
            "run.sh exited with code 7"
        )
