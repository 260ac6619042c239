"""What can go wrong on the server, and the HTTP status that each has."""

from collections.abc import Mapping
from http import HTTPStatus

from job_orchestrator.common.config.units import size_text
from job_orchestrator.common.errors import (
    TOO_MUCH_STORED,
    BadRequest,
    DomainError,
    StartupError,
    TryLater,
)
from job_orchestrator.common.status import JobStatus


class JobNotFound(DomainError):
    """No job has this id."""

    def __init__(self, job_id: int) -> None:
        super().__init__(f"Job {job_id} not found")
        self.job_id = job_id


class JobAlreadyEnded(DomainError):
    """A job that has ended can't be terminated."""

    def __init__(self, job_id: int, status: JobStatus) -> None:
        super().__init__(f"Job {job_id} has already ended: it is {status}")
        self.job_id = job_id
        self.status = status


class OutputNotFound(DomainError):
    """There is nothing of a job to download: it was never dispatched, or its output is gone."""


class InvalidSubmission(BadRequest):
    """A form that is no job; the message is part of the contract."""


class TooManyQueued(TryLater):
    """A user has as many jobs in the queue as one may have."""

    retry_after_s = 60


class TooMuchStored(TryLater):
    """A user's files take as much room as they may."""

    retry_after_s = 3600
    code = TOO_MUCH_STORED


class ClientError(DomainError):
    """A client did not do what it was asked; ``str`` names the client and the reason."""


class ClientUnreachable(ClientError):
    """No connection could be made: the client has not seen the request."""


class AnswerLost(ClientError):
    """The connection broke after the request went out: it may have been carried out."""


class ClientTimeout(AnswerLost):
    """The client accepted the connection and did not answer in time."""


class ClientBusy(ClientError, TryLater):
    """The client can take nothing now (draining, or its disk is full) and says so."""


class TokenRefused(ClientBusy):
    """The client does not take this server for its own. Jobs wait until that is mended."""


class ClientRefused(ClientError):
    """The client says that the request itself is wrong; repeating it would not help."""


class ClientFailed(ClientError):
    """The client answered with an error of its own, or with nonsense."""


class TooManyUploads(TryLater):
    """A user sends as many jobs at once as one may."""


class TooManyReaders(TryLater):
    """The output of a job is being read as often as it may be at once."""


class ResultsTooLarge(DomainError):
    """What a client sends as a job's results is larger than MAX_RESULT_SIZE: nothing is kept."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(
            f"The results are larger than {size_text(max_bytes)} (MAX_RESULT_SIZE of jo-server);"
            " they were not kept"
        )


class PayloadLost(ClientError):
    """The client no longer has the payload, or has another one under its id."""


class TerminationPending(DomainError):
    """The job is being handed to a client that does not answer; it is ended as soon as it does."""


class DatabaseTooNew(StartupError):
    """The database was written by a later version."""


STATUSES: Mapping[type[DomainError], HTTPStatus] = {
    JobNotFound: HTTPStatus.NOT_FOUND,
    OutputNotFound: HTTPStatus.NOT_FOUND,
    JobAlreadyEnded: HTTPStatus.CONFLICT,
    PayloadLost: HTTPStatus.BAD_GATEWAY,
    ClientBusy: HTTPStatus.SERVICE_UNAVAILABLE,
    TokenRefused: HTTPStatus.BAD_GATEWAY,
    TooManyQueued: HTTPStatus.TOO_MANY_REQUESTS,
    TooMuchStored: HTTPStatus.INSUFFICIENT_STORAGE,
    ClientTimeout: HTTPStatus.GATEWAY_TIMEOUT,
    ClientError: HTTPStatus.BAD_GATEWAY,
    TerminationPending: HTTPStatus.GATEWAY_TIMEOUT,
}
