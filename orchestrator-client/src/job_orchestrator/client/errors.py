"""What can go wrong on the client, and the HTTP status that each has."""

from collections.abc import Mapping
from http import HTTPStatus

from job_orchestrator.common.errors import BadRequest, DomainError, TryLater


class PayloadNotFound(DomainError):
    """No payload has this id here: it never had, or a restart has forgotten it."""

    def __init__(self, payload_id: int) -> None:
        super().__init__(f"Payload {payload_id} not found")


class PayloadNotEnded(DomainError):
    """Only the results of a payload that has ended can be removed."""


class ResultsGone(DomainError):
    """The files of a payload were removed."""


class MissingScript(BadRequest):
    """A payload without a run.sh."""


class StillRunning(DomainError):
    """Processes of a payload could not be ended in time."""


class IdsExhausted(DomainError):
    """All 32-bit ids were used."""


class ClientStops(TryLater):
    """No new payloads are taken: the client drains."""


class TooManyPartials(TryLater):
    """The output of a payload is being packed for others already, as often as it may be."""


class NoCgroups(DomainError):
    """Payloads can't have cgroups here; the message says why."""


class ArchiveFailed(DomainError):
    """The results could not be packed."""


class OnlyOutputKept(ArchiveFailed):
    """Of the results, only what the script said was packed; the message says why."""


class ResultTooLarge(OnlyOutputKept):
    """They are larger than MAX_RESULT_SIZE."""


class PackingGivenUp(OnlyOutputKept):
    """Nobody waits for the rest: the payload is terminated."""


class PackingTookTooLong(OnlyOutputKept):
    """Others want to have their results packed, too."""


STATUSES: Mapping[type[DomainError], HTTPStatus] = {
    PayloadNotFound: HTTPStatus.NOT_FOUND,
    ResultsGone: HTTPStatus.NOT_FOUND,
    PayloadNotEnded: HTTPStatus.CONFLICT,
    StillRunning: HTTPStatus.INTERNAL_SERVER_ERROR,
}
