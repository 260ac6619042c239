"""Errors of the client library for the answers of servers, and the exit status of each."""

import json

import pytest

from job_orchestrator import sdk
from job_orchestrator.cli import exit_codes
from job_orchestrator.sdk.errors import error_of

URL = "http://localhost:5000"


@pytest.mark.parametrize(
    ("status", "job_id", "message", "kind", "exit_status"),
    [
        (400, 0, "Missing run.sh", sdk.Refused, 65),
        (401, 0, "No valid token", sdk.NotAuthorized, 77),
        (403, 0, "Not allowed", sdk.NotAuthorized, 77),
        (404, 7, "Job 7 is Queued and has no output", sdk.OutputNotFound, 66),
        (409, 7, "Job 7 has already ended", sdk.AlreadyEnded, 1),
        (429, 0, "Too many queued jobs", sdk.QuotaExceeded, 75),
        (500, 0, "Internal error", sdk.ServerFailed, 1),
        (502, 0, "The client can't be reached", sdk.MachineUnavailable, 75),
        (503, 0, "Stopping", sdk.ServerBusy, 69),
        (504, 0, "The client doesn't answer", sdk.MachineUnavailable, 75),
        (507, 0, "The disk is full", sdk.StorageOfServerFull, 1),
    ],
)
def test_error_of_the_server_becomes_its_class_with_its_message(
    status: int, job_id: int, message: str, kind: type[sdk.ApiError], exit_status: int
) -> None:
    body = json.dumps({"id": job_id, "status": "Unknown", "message": message}).encode()
    error = error_of(URL, status, {"Retry-After": "30"}, body)
    assert type(error) is kind
    assert message in str(error)
    assert exit_codes.of_error(error) == exit_status
    if isinstance(error, sdk.QuotaExceeded | sdk.ServerBusy):
        assert error.retry_after_s == 30


@pytest.mark.parametrize(
    ("status", "code", "kind", "exit_status"),
    [
        (404, "no-such-path", sdk.NotAJobServer, 1),
        (404, "", sdk.OutputNotFound, 66),
        (404, "of a later version", sdk.OutputNotFound, 66),
        (507, "too-much-stored", sdk.QuotaExceeded, 75),
        (507, "", sdk.StorageOfServerFull, 1),
    ],
)
def test_errors_of_one_http_status_are_distinguished_by_their_code(
    status: int, code: str, kind: type[sdk.ApiError], exit_status: int
) -> None:
    answer = {"id": 0, "status": "Unknown", "message": "No"}
    body = json.dumps({**answer, "code": code} if code else answer).encode()
    error = error_of(URL, status, {}, body)
    assert type(error) is kind
    assert exit_codes.of_error(error) == exit_status


@pytest.mark.parametrize(
    ("status", "headers", "kind", "text"),
    [
        (301, {"Location": "https://x/"}, sdk.NotAJobServer, "redirects to https://x/"),
        (401, {}, sdk.NotAuthorized, "give a token"),
        (404, {}, sdk.NotAJobServer, "is the URL right"),
        (413, {}, sdk.Refused, "a proxy in front of the server"),
        (429, {"Retry-After": "soon"}, sdk.QuotaExceeded, "too many requests"),
        (502, {}, sdk.ServerBusy, "try again later"),
    ],
)
def test_answer_of_a_proxy_says_what_to_do(
    status: int, headers: dict[str, str], kind: type[sdk.ApiError], text: str
) -> None:
    error = error_of(URL, status, headers, b"<html>nginx</html>")
    assert type(error) is kind
    assert text in str(error)


def test_job_that_does_not_exist_is_recognised_by_the_code() -> None:
    answer = {"id": 0, "status": "Unknown", "message": "Job 7 not found", "code": "no-such-job"}
    error = error_of(URL, 404, {}, json.dumps(answer).encode())
    assert type(error) is sdk.JobNotFound
    assert str(error) == "Job 7 not found; list jobs to see which there are"
    assert exit_codes.of_error(error) == 66
