"""Which error an answer is, and which exit status an error and an end of a job are."""

import json
from datetime import UTC, datetime

import pytest

from job_orchestrator import sdk as api
from job_orchestrator.cli import exit_codes
from job_orchestrator.sdk.errors import error_of

URL = "http://localhost:5000"


@pytest.mark.parametrize(
    ("status", "job_id", "message", "kind", "exit_status"),
    [
        (400, 0, "Missing run.sh", api.Refused, 65),
        (401, 0, "No valid token", api.NotAuthorized, 77),
        (403, 0, "Not allowed", api.NotAuthorized, 77),
        (404, 7, "Job 7 not found", api.JobNotFound, 66),
        (404, 0, "Job 7 is Queued and has no output", api.OutputNotFound, 66),
        (409, 7, "Job 7 has already ended", api.AlreadyEnded, 1),
        (429, 0, "Too many queued jobs", api.QuotaExceeded, 75),
        (500, 0, "Internal error", api.ServerFailed, 1),
        (502, 0, "The client can't be reached", api.MachineUnavailable, 1),
        (503, 0, "Stopping", api.ServerBusy, 69),
        (504, 0, "The client doesn't answer", api.MachineUnavailable, 1),
        (507, 0, "The disk is full", api.StorageOfServerFull, 1),
    ],
)
def test_answer_of_the_server_is_its_error_and_keeps_its_message(
    status: int, job_id: int, message: str, kind: type[api.ApiError], exit_status: int
) -> None:
    body = json.dumps({"id": job_id, "status": "Unknown", "message": message}).encode()
    error = error_of(URL, status, {"Retry-After": "30"}, body)
    assert type(error) is kind
    assert message in str(error)
    assert exit_codes.of_error(error) == exit_status
    if isinstance(error, api.QuotaExceeded | api.ServerBusy):
        assert error.retry_after_s == 30


@pytest.mark.parametrize(
    ("status", "code", "kind", "exit_status"),
    [
        (404, "no-such-path", api.NotAJobServer, 1),
        (404, "", api.OutputNotFound, 66),
        (404, "of a later version", api.OutputNotFound, 66),
        (507, "too-much-stored", api.QuotaExceeded, 75),
        (507, "", api.StorageOfServerFull, 1),
    ],
)
def test_errors_of_one_status_are_told_apart_by_their_code(
    status: int, code: str, kind: type[api.ApiError], exit_status: int
) -> None:
    said = {"id": 0, "status": "Unknown", "message": "As you like it"}
    body = json.dumps({**said, "code": code} if code else said).encode()
    error = error_of(URL, status, {}, body)
    assert type(error) is kind
    assert exit_codes.of_error(error) == exit_status


@pytest.mark.parametrize(
    ("status", "headers", "kind", "said"),
    [
        (301, {"Location": "https://x/"}, api.NotAJobServer, "sends to https://x/"),
        (401, {}, api.NotAuthorized, "give a token"),
        (404, {}, api.NotAJobServer, "is the URL right"),
        (413, {}, api.Refused, "a proxy before the server"),
        (429, {"Retry-After": "soon"}, api.QuotaExceeded, "too many requests"),
        (502, {}, api.ServerBusy, "try again later"),
    ],
)
def test_answer_of_something_before_the_server_is_told_from_its_own(
    status: int, headers: dict[str, str], kind: type[api.ApiError], said: str
) -> None:
    error = error_of(URL, status, headers, b"<html>nginx</html>")
    assert type(error) is kind
    assert said in str(error)


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
def test_end_of_a_job_is_an_exit_status(status: str, exit_code: int | None, code: int) -> None:
    job = api.Job(
        id=1,
        user_id=1,
        service="example",
        status=api.JobStatus(status),
        exit_code=exit_code,
        created_at=datetime.now(UTC),
    )
    assert exit_codes.of_job(job) == code
