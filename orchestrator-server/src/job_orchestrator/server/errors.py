"""Errors of the server, and the HTTP status of each domain error."""

from collections.abc import Mapping
from http import HTTPStatus

from job_orchestrator.common.config.units import size_text
from job_orchestrator.common.errors import (
    CLIENT_IN_USE,
    NO_SUCH_CLIENT,
    NO_SUCH_JOB,
    TOO_MUCH_STORED,
    BadRequest,
    DomainError,
    StartupError,
    TryLater,
)
from job_orchestrator.common.status import JobStatus


class StoreError(Exception):
    """The database failed: it can't be read or written, or it is closed.

    This is a fault of the system, not of a request. Therefore it is not a ``DomainError``.
    """


class JobNotFound(DomainError):
    """A job with this id does not exist."""

    code = NO_SUCH_JOB

    def __init__(self, job_id: int) -> None:
        super().__init__(f"Job {job_id} not found in the database")


class JobAlreadyEnded(DomainError):
    """A job that has ended can't be terminated."""

    def __init__(self, job_id: int, status: JobStatus) -> None:
        super().__init__(f"Job {job_id} has already ended: it is {status}")
        self.status = status


class JobNotQueued(DomainError):
    """A job that has left the queue can't be held, and its priority has no effect any more."""

    def __init__(self, job_id: int, status: JobStatus) -> None:
        super().__init__(f"Job {job_id} is not in the queue any more: it is {status}")
        self.job_id = job_id
        self.status = status


class ServiceNotFound(DomainError):
    """A service with this name is not configured."""


class ClientNotFound(DomainError):
    """There is no client with this name."""

    code = NO_SUCH_CLIENT


class ClientInUse(DomainError):
    """A client that can't be forgotten now, or at all."""

    code = CLIENT_IN_USE


class NeededResultsUnusable(DomainError):
    """The results of a job can't be given to a job that needs them."""

    def __init__(self, on_id: int, why: str) -> None:
        super().__init__(f"The results of job {on_id}, which it needs, can't be used: {why}")


class OutputNotFound(DomainError):
    """The job has no output to download: it was never dispatched, or its files were removed."""


class InvalidSubmission(BadRequest):
    """A form that does not describe a job. The message is part of the HTTP contract."""


class TooManyQueued(TryLater):
    """A user has reached the limit of queued jobs."""

    retry_after_s = 60


class RateExceeded(TryLater):
    """A user has submitted as many jobs as the rate allows."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooMuchStored(TryLater):
    """A user has reached the limit of stored bytes."""

    retry_after_s = 3600
    code = TOO_MUCH_STORED


class ClientError(DomainError):
    """A request to a client failed. The message names the client and the reason.

    ``for_users`` is the message for users, who do not know clients.
    """

    for_users = "The machine of this job failed; try again later"


class ClientUnreachable(ClientError):
    """The connection could not be opened: the client has not received the request."""

    for_users = "The machine of this job can't be reached at present; try again later"


class ClientDisconnected(ClientUnreachable):
    """The open connection to the client broke, or has no room, before the request was sent."""


class AnswerLost(ClientError):
    """The connection broke after the request was sent: the client may have processed it."""


class ClientTimeout(AnswerLost):
    """The client accepted the connection and did not answer in time."""

    for_users = "The machine of this job did not answer in time; try again later"


class ClientBusy(ClientError, TryLater):
    """The client reports that it accepts nothing now: it is draining, or its disk is full."""

    for_users = "The machine of this job is busy; try again later"


class AccessRefused(ClientBusy):
    """The client, or a proxy before it, does not admit this server, for example by its host name.

    No job is at fault: they wait until an administrator has changed the settings.
    """


class TokenRefused(AccessRefused):
    """The client rejects the token of this server. Jobs wait until the tokens are equal."""


class ClientRefused(ClientError):
    """The client rejects the request itself, so that repeating it would not help.

    ``reason`` is the answer of the client, without its name.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class ClientFailed(ClientError):
    """The client answered with an internal error, or with an invalid answer."""


class TooManyUploads(TryLater):
    """A user has reached the limit of concurrent uploads."""


class TooManyReaders(TryLater):
    """The limit of concurrent readers of a job's output is reached."""


class ResultsTooLarge(DomainError):
    """The results that a client sends exceed MAX_RESULT_SIZE. Nothing of them is stored."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(
            f"The results are larger than {size_text(max_bytes)} (MAX_RESULT_SIZE of jo-server);"
            " they were not kept"
        )


class PayloadLost(ClientError):
    """The client no longer has the payload, or has another one under its id."""

    for_users = "The machine of this job no longer has its output"


class PayloadGivenBack(PayloadLost):
    """The client has given the payload back, and its script never begins."""


class DatabaseTooNew(StartupError):
    """The schema of the database belongs to a later version of jo-server."""


STATUSES: Mapping[type[DomainError], HTTPStatus] = {
    JobNotFound: HTTPStatus.NOT_FOUND,
    OutputNotFound: HTTPStatus.NOT_FOUND,
    JobAlreadyEnded: HTTPStatus.CONFLICT,
    JobNotQueued: HTTPStatus.CONFLICT,
    ServiceNotFound: HTTPStatus.NOT_FOUND,
    ClientNotFound: HTTPStatus.NOT_FOUND,
    ClientInUse: HTTPStatus.CONFLICT,
    PayloadLost: HTTPStatus.BAD_GATEWAY,
    ClientBusy: HTTPStatus.SERVICE_UNAVAILABLE,
    AccessRefused: HTTPStatus.BAD_GATEWAY,
    TooManyQueued: HTTPStatus.TOO_MANY_REQUESTS,
    RateExceeded: HTTPStatus.TOO_MANY_REQUESTS,
    TooMuchStored: HTTPStatus.INSUFFICIENT_STORAGE,
    ClientTimeout: HTTPStatus.GATEWAY_TIMEOUT,
    ClientError: HTTPStatus.BAD_GATEWAY,
}
