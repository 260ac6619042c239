"""Exit status of ``jo`` for jobs that have ended."""

from datetime import UTC, datetime

import pytest

from job_orchestrator import sdk
from job_orchestrator.cli import exit_codes


@pytest.mark.parametrize(
    ("status", "exit_code", "code"),
    [
        ("Completed", 0, 0),
        ("Failed", 7, 7),
        ("Failed", -9, 137),
        ("Failed", None, 1),
        ("Failed", 256, 1),
        ("Invalid", None, 126),
        ("Killed", None, 137),
        ("Cleaned", 0, 0),
        ("Cleaned", 7, 7),
    ],
)
def test_end_of_a_job_has_its_exit_status(status: str, exit_code: int | None, code: int) -> None:
    job = sdk.Job(
        id=1,
        user_id=1,
        service="example",
        status=sdk.JobStatus(status),
        exit_code=exit_code,
        created_at=datetime.now(UTC),
    )
    assert exit_codes.of_job(job) == code
