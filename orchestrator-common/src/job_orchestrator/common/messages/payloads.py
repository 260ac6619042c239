"""Messages about payloads and about the load of a client: answers of jo-client."""

from typing import Annotated, Any, TypeAlias

import msgspec

from job_orchestrator.common.messages.encoding import StoredInteger
from job_orchestrator.common.messages.resources import Resources
from job_orchestrator.common.status import PayloadStatus

RunSeconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]
"""Time that a script ran."""


class Payload(msgspec.Struct, frozen=True):
    """A payload, as its client reports it.

    Only ``id`` and ``status`` are required when reading: older clients leave out ``exit_code`` and
    ``message``, and echo the uploaded bytes in ``input``. When writing, the first six are always
    there, ``pid`` as an integer (0: no process), because older servers refuse a payload without
    them. ``at`` is the time of the report, by the clock of the reader; it is not sent. ``run_s`` is
    how many seconds the script ran; it is left out before its end, and by older clients.
    """

    id: StoredInteger
    status: PayloadStatus
    input: Any = msgspec.field(default_factory=dict)
    loc: str = ""
    pid: int | None = 0
    killed: bool = False
    exit_code: StoredInteger | None = None
    message: str | None = ""
    at: float | msgspec.UnsetType = msgspec.UNSET
    run_s: RunSeconds | msgspec.UnsetType = msgspec.UNSET


class InventoryEntry(msgspec.Struct, frozen=True):
    """A payload in the inventory of its client; ``key`` is None if its submit had none."""

    id: StoredInteger
    key: str | None
    status: PayloadStatus


class ErrorPayload(msgspec.Struct, frozen=True):
    """Error of jo-client: has the shape of a payload with id 0, so that any server can read it.

    ``status`` is ``Unknown``, which no payload ever is; ``code`` is as in ``JobError``.
    """

    message: str
    id: int = 0
    status: str = "Unknown"
    input: dict[str, Any] = msgspec.field(default_factory=dict)
    loc: str = ""
    pid: int = 0
    killed: bool = False
    exit_code: int | None = None
    code: str = ""


class AcknowledgedPayloads(msgspec.Struct, frozen=True):
    """Answer of ``DELETE /retrieve``: ids of the payloads whose files were removed."""

    discarded: list[int]


class PayloadEvent(msgspec.Struct, frozen=True):
    """``event: payload`` of a client's event stream: a payload has changed to this status.

    A Running payload that is ``packing`` holds no slot any more: its script has ended. ``at`` is
    when it changed, by the clock of the reader. It is not sent in the stream, whose reader does not
    know the clock of the client. ``run_s`` is as in ``Payload``.
    """

    id: StoredInteger
    status: PayloadStatus
    exit_code: StoredInteger | None = None
    message: str = ""
    packing: bool = False
    at: float | msgspec.UnsetType = msgspec.UNSET
    run_s: RunSeconds | msgspec.UnsetType = msgspec.UNSET


class ClientLimits(msgspec.Struct, frozen=True):
    """Settings of a client that must agree with those of its server. Sizes of 0: no limit.

    ``max_upload_bytes`` limits the files of a payload, ``max_result_bytes`` its results;
    ``max_age_s`` is how long the client keeps results that nobody fetches.
    """

    max_upload_bytes: StoredInteger
    max_result_bytes: StoredInteger
    max_age_s: float


class LoadEvent(msgspec.Struct, frozen=True):
    """``event: load`` of a client's event stream.

    ``cpu`` and ``memory`` are per cent of the machine (0-100). ``slots`` is the number of payloads
    that may run at the same time, ``running`` of those whose script runs, ``waiting`` of the
    Prepared ones.
    A ``draining`` client accepts no further payloads: it is stopping, or its machine has the fault
    ``problem``. ``version`` is that of jo-client, ``warnings`` are about its settings. Older
    versions don't send their ``limits``. ``resources`` is what the machine has for payloads that
    ask for some, ``resources_used`` what these have asked for; older versions have none.
    """

    cpu: float
    memory: float
    slots: int
    running: int
    waiting: int
    draining: bool = False
    version: str = ""
    limits: ClientLimits | None = None
    problem: str = ""
    warnings: tuple[str, ...] = ()
    resources: Resources | None = None
    resources_used: Resources | None = None
