"""Errors of the client library. Each message says what happened and what to do."""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec

from job_orchestrator.common.errors import (
    CLIENT_IN_USE,
    NO_SUCH_CLIENT,
    NO_SUCH_JOB,
    NO_SUCH_PATH,
    TOO_MUCH_STORED,
    DomainError,
)
from job_orchestrator.common.messages.jobs import JobError
from job_orchestrator.common.status import JobStatus


class ApiError(DomainError):
    """Failure of a call to jo-server; the base class of all errors of this module."""


class ServerUnavailable(ApiError):
    """The server can't be used at present; the same call may succeed later.

    ``retry_after_s`` is the number of seconds after which the server asks for a retry, if it gave
    one.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ServerUnreachable(ServerUnavailable):
    """No connection could be made: the server has not received the call."""


class ConnectionBroken(ServerUnavailable):
    """The connection broke during the call: the server may have carried out the call."""


class ResultsDamaged(ApiError):
    """The downloaded results are not those that the server has: their digest differs."""


class ServerBusy(ServerUnavailable):
    """The server, or a proxy in front of it, reports that it can't answer at present."""


class Refused(ApiError):
    """The server rejects the call as wrong; repeating the call would not help."""


class UnusableFiles(Refused):
    """The files of a job can't be sent as they are."""


class NotAuthorized(ApiError):
    """The token is missing or wrong, or does not allow the call."""


class QuotaExceeded(ApiError):
    """The user has too many jobs or bytes on the server, or makes too many requests.

    ``retry_after_s`` is the number of seconds after which the server asks for a retry, if it gave
    one.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class JobNotFound(ApiError):
    """No job has this id, or the job belongs to another user."""


class OutputNotFound(ApiError):
    """The job has no output to fetch: it was never started, or its output has been removed."""


class AlreadyEnded(ApiError):
    """The job has ended and can't be cancelled. ``status`` is its final state."""

    def __init__(self, message: str, status: JobStatus) -> None:
        super().__init__(message)
        self.status = status


class NotCompleted(ApiError):
    """The job has no results, or has none yet. ``status`` is its state."""

    def __init__(self, message: str, status: JobStatus) -> None:
        super().__init__(message)
        self.status = status


class NotEnded(ApiError):
    """The job has not ended within the time limit of a wait; the job continues."""


class StorageOfServerFull(ApiError):
    """The server's disk is full. The server has stored nothing of the call."""


class LocalStorageFailed(ApiError):
    """A file can't be written on this machine."""


class MachineUnavailable(ApiError):
    """The server can't reach the compute machine that has the job, or the machine failed."""


class ServerFailed(ApiError):
    """The server failed; its log has the details."""


class NotAJobServer(ApiError):
    """The URL is not that of a jo-server, or its version does not know the call."""


def error_of(url: str, status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """Return the error that an answer stands for. ``body`` may be cut off after some KiB."""
    try:
        answer = msgspec.json.decode(body, type=JobError)
    except msgspec.MsgspecError:
        return _foreign_error(url, status, headers)
    return _server_error(url, status, headers, answer)


def _server_error(url: str, status: int, headers: Mapping[str, str], answer: JobError) -> ApiError:
    """Return the error of an answer that has the form of jo-server's errors."""
    message = answer.message
    match status:
        case 401 | 403:
            hint = "Give a valid token (token=…; JO_TOKEN for the command)"
            return NotAuthorized(f"{message}. {hint}" if status == 401 else message)
        case 404 if answer.code == NO_SUCH_JOB:
            return JobNotFound(f"{message}; list jobs to see which there are")
        case 404 if answer.code == NO_SUCH_PATH:
            return NotAJobServer(
                f"{url} does not know this call: it is a jo-client, or a jo-server of an older"
                " version"
            )
        case 404 | 409 if answer.code in (NO_SUCH_CLIENT, CLIENT_IN_USE):
            return Refused(message)
        case 404:
            return OutputNotFound(message)
        case 409:
            return AlreadyEnded(message, answer.status)
        case 429:
            return QuotaExceeded(message, _retry_after_s(headers))
        case 503:
            return ServerBusy(f"{url}: {message}", _retry_after_s(headers))
        case 502 | 504:
            return MachineUnavailable(message)
        case 507 if answer.code == TOO_MUCH_STORED:
            return QuotaExceeded(message, _retry_after_s(headers))
        case 507:
            return StorageOfServerFull(message)
        case _ if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return Refused(message)
    return ServerFailed(f"{url}: {message}")


def _foreign_error(url: str, status: int, headers: Mapping[str, str]) -> ApiError:
    """Return the error of an answer that jo-server does not give: by a proxy, say."""
    match status:
        case 401 | 403:
            return NotAuthorized(f"{url} refuses with {status}: give a token that it accepts")
        case 413:
            return Refused(
                f"{url}: the files exceed the limit of a proxy in front of the server;"
                " ask its administrator to raise the limit"
            )
        case 429:
            return QuotaExceeded(f"{url}: too many requests", _retry_after_s(headers))
        case 502 | 503 | 504:
            return ServerBusy(f"{url} answers {status}: try again later", _retry_after_s(headers))
        case _ if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            target = headers.get("Location", "another address")
            return NotAJobServer(f"{url} redirects to {target}: use the URL of jo-server itself")
    return NotAJobServer(
        f"{url} answers {status}, and not in the form of a jo-server: is the URL right?"
    )


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    text = headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() else None
