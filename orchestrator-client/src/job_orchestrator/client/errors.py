"""Domain errors of the client, and the HTTP status of each."""

from collections.abc import Mapping
from http import HTTPStatus

from job_orchestrator.common.errors import GIVEN_BACK, BadRequest, DomainError, TryLater


class PayloadNotFound(DomainError):
    """No payload has this id: it never existed, or it was forgotten at a restart."""

    def __init__(self, payload: int | str) -> None:
        super().__init__(f"Payload {payload} not found")


class PayloadGivenBack(PayloadNotFound):
    """The payload was given back before run.sh began, and never runs."""

    code = GIVEN_BACK


class AttemptReturned(PayloadGivenBack):
    """The payload of this key was recalled or given back; its job is in another attempt."""

    def __init__(self) -> None:
        DomainError.__init__(self, "This attempt was called back or given back, and is not run")


class PayloadNotEnded(DomainError):
    """The results of a payload that has not ended cannot be removed."""


class ResultsGone(DomainError):
    """The files of a payload were removed."""


class MissingScript(BadRequest):
    """The payload has no run.sh."""


class StillRunning(DomainError):
    """Processes of a payload could not be ended in time."""


class IdsExhausted(DomainError):
    """Every 32-bit id has been used."""


class ClientStops(TryLater):
    """The client drains, and accepts no payloads."""


class ClientUnfit(TryLater):
    """The machine can't run payloads at present, so the client accepts none."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"This client can't run payloads at present; use another one: {problem}")


class ClientTooSmall(TryLater):
    """The payload asks for more than this machine has; another client may have it."""

    def __init__(self, wanted: object, offer: object) -> None:
        super().__init__(f"This client has {offer}, and the job asks for {wanted}; use another one")


class MachineFault(DomainError):
    """The machine can't run scripts; the payload is not to blame, and its run.sh has not begun."""


class TooManyPartials(TryLater):
    """The partial results of a payload are being packed for the maximum number of requests."""


class CgroupsUnavailable(DomainError):
    """Payloads cannot have cgroups on this machine; the message gives the reason."""


class ArchiveFailed(DomainError):
    """The results could not be packed."""


class DiskFails(ArchiveFailed):
    """The disk or the limits of the machine prevent packing; it may succeed later."""


class PackingHangs(ArchiveFailed):
    """A file system did not answer for long while results were packed."""


class FolderGone(ArchiveFailed):
    """The folder of the payload was moved or removed, so that it has no results."""


class OnlyOutputKept(ArchiveFailed):
    """Only the output of the script was packed; the message gives the reason.

    ``sha256`` is the digest of the archive with the output, once that is written.
    """

    sha256: bytes | None = None


class ResultTooLarge(OnlyOutputKept):
    """The results are larger than MAX_RESULT_SIZE."""


class PackingGivenUp(OnlyOutputKept):
    """The rest of the results is not needed: the payload is terminated."""


class PackingTookTooLong(OnlyOutputKept):
    """Packing was stopped at its time limit, so that other results can be packed."""


STATUSES: Mapping[type[DomainError], HTTPStatus] = {
    PayloadNotFound: HTTPStatus.NOT_FOUND,
    PayloadGivenBack: HTTPStatus.NOT_FOUND,
    ResultsGone: HTTPStatus.NOT_FOUND,
    FolderGone: HTTPStatus.NOT_FOUND,
    PayloadNotEnded: HTTPStatus.CONFLICT,
    StillRunning: HTTPStatus.INTERNAL_SERVER_ERROR,
}
