"""The table of failed attempts against the decision that it implements."""

import pytest

from job_orchestrator.server.dispatch.outcome import (
    FAILURES,
    AttemptFailure,
    ClientNotConfigured,
    ClientSilent,
    failure_of,
)
from job_orchestrator.server.errors import (
    AnswerLost,
    ClientBusy,
    ClientError,
    ClientFailed,
    ClientRefused,
    ClientTimeout,
    ClientUnreachable,
    PayloadLost,
    TokenRefused,
)


@pytest.mark.parametrize(
    ("error", "listed_as"),
    [
        (ClientTimeout("x"), ClientError),
        (AnswerLost("x"), ClientError),
        (ClientFailed("x"), ClientError),
        (ClientSilent("x"), ClientError),
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


@pytest.mark.parametrize("error", [ClientBusy("x"), ClientNotConfigured("x")])
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


def test_reason_holds_the_error_as_it_is() -> None:
    failure: AttemptFailure = failure_of(ValueError("{0} braces {}"))
    assert failure.reason.format(ValueError("{0} braces {}")).endswith(": {0} braces {}")
