"""Values of the client: payloads, limits, users. They do no I/O and know neither SQL nor HTTP."""

from dataclasses import dataclass
from typing import NamedTuple

from job_orchestrator.common.status import PayloadStatus


@dataclass(frozen=True)
class Limits:
    """Resources that one payload may use, all its processes together. 0: no limit."""

    memory_bytes: int = 0
    pids: int = 0
    cpus: float = 0.0


NO_LIMITS = Limits()


class ScriptUser(NamedTuple):
    """User that scripts run as."""

    uid: int
    gid: int


@dataclass(frozen=True)
class PayloadRow:
    """Row of a payload in the store, at the time of reading.

    ``key`` is the server's idempotency key, None if the submit had none. ``refusal`` is the reason
    why the script must not be run; empty: it may be run. ``time_limit_s`` is how long the script
    may run; None: without a limit. ``packing``: its script has ended, so it holds no slot, and its
    results are being packed. ``ended_at`` is in seconds since the epoch.
    ``results_sha256`` is the digest of the packed results, None if there are none.
    """

    id: int
    uuid: str
    key: str | None
    refusal: str
    time_limit_s: float | None
    status: PayloadStatus
    killed: bool
    exit_code: int | None
    message: str
    ended_at: float | None
    packing: bool = False
    results_sha256: bytes | None = None
