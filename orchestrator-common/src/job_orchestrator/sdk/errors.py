"""What can go wrong between a program and its jo-server. Each message says what to do."""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec

from job_orchestrator.common.errors import NO_SUCH_PATH, TOO_MUCH_STORED, DomainError
from job_orchestrator.common.status import JobStatus


class ApiError(DomainError):
    """Any failure of a call to jo-server."""


class ServerUnavailable(ApiError):
    """The server can't be used just now; the same call may work later.

    ``retry_after_s``: seconds after which the server wants to be asked again, if it said so.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ServerUnreachable(ServerUnavailable):
    """No connection could be made: the server has not seen the call."""


class ConnectionBroken(ServerUnavailable):
    """The connection broke after the call went out: the server may have carried it out."""


class ServerBusy(ServerUnavailable):
    """The server, or a proxy before it, says that it can't answer now."""


class Refused(ApiError):
    """The server says that the call itself is wrong; repeating it would not help."""


class UnusableFiles(Refused):
    """The files of a job can't be sent as they are."""


class NotAuthorized(ApiError):
    """The token is missing or wrong, or does not allow this."""


class QuotaExceeded(ApiError):
    """This user has too much on the server, or asks too often.

    ``retry_after_s``: seconds after which the server wants to be asked again, if it said so.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class JobNotFound(ApiError):
    """No job has this id, or it is somebody else's."""


class OutputNotFound(ApiError):
    """There is nothing of the job to fetch: it was never dispatched, or its output is gone."""


class AlreadyEnded(ApiError):
    """A job that has ended can't be cancelled. ``status`` is what it ended as."""

    def __init__(self, message: str, status: JobStatus) -> None:
        super().__init__(message)
        self.status = status


class NotCompleted(ApiError):
    """The job has no results (yet). ``status`` is its state."""

    def __init__(self, message: str, status: JobStatus) -> None:
        super().__init__(message)
        self.status = status


class NotEnded(ApiError):
    """The job has not ended within the time that was waited for it; it goes on."""


class StorageOfServerFull(ApiError):
    """The server's disk is full. Nothing was kept."""


class MachineUnavailable(ApiError):
    """The compute machine that has the job can't be reached from the server, or fails."""


class ServerFailed(ApiError):
    """The server failed; its log has the details."""


class NotAJobServer(ApiError):
    """What answers at the URL is no jo-server, or one that doesn't know this call."""


class _ErrorBody(msgspec.Struct):
    id: int
    status: JobStatus
    message: str
    code: str = ""


def error_of(url: str, status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """The error that an answer stands for. ``body`` may be cut off after some KiB."""
    try:
        said = msgspec.json.decode(body, type=_ErrorBody)
    except msgspec.MsgspecError:
        return _foreign_error(url, status, headers)
    return _own_error(url, status, headers, said)


def _own_error(url: str, status: int, headers: Mapping[str, str], said: _ErrorBody) -> ApiError:
    """The error of an answer that has the shape of jo-server's."""
    message = said.message
    match status:
        case 401 | 403:
            hint = "Give a valid token (token=…; JO_TOKEN for the command)"
            return NotAuthorized(f"{message}. {hint}" if status == 401 else message)
        case 404 if said.id:
            return JobNotFound(f"{message}; list the jobs that there are")
        case 404 if said.code == NO_SUCH_PATH:
            return NotAJobServer(
                f"{url} has no such call: it is a jo-client, or a jo-server of an older version"
            )
        case 404:
            return OutputNotFound(message)
        case 409:
            return AlreadyEnded(message, said.status)
        case 429:
            return QuotaExceeded(message, _retry_after_s(headers))
        case 503:
            return ServerBusy(f"{url}: {message}", _retry_after_s(headers))
        case 502 | 504:
            return MachineUnavailable(message)
        case 507 if said.code == TOO_MUCH_STORED:
            return QuotaExceeded(message, _retry_after_s(headers))
        case 507:
            return StorageOfServerFull(message)
        case _ if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return Refused(message)
    return ServerFailed(f"{url}: {message}")


def _foreign_error(url: str, status: int, headers: Mapping[str, str]) -> ApiError:
    """The error of an answer that jo-server doesn't give: a proxy's, or another service's."""
    match status:
        case 401 | 403:
            return NotAuthorized(f"{url} refuses with {status}: give a token that it accepts")
        case 413:
            return Refused(f"{url}: too large for a proxy before the server; its limit must grow")
        case 429:
            return QuotaExceeded(f"{url}: too many requests", _retry_after_s(headers))
        case 502 | 503 | 504:
            return ServerBusy(f"{url} answers {status}: try again later", _retry_after_s(headers))
        case _ if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            elsewhere = headers.get("Location", "another address")
            return NotAJobServer(f"{url} sends to {elsewhere}: use the URL of jo-server itself")
    return NotAJobServer(f"{url} answers {status} as no jo-server does: is the URL right?")


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    text = headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() else None
