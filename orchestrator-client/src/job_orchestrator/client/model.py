"""The values that the client works with: payloads, limits, users. No I/O, no SQL, no HTTP."""

from dataclasses import dataclass
from typing import NamedTuple

from job_orchestrator.common.status import PayloadStatus


@dataclass(frozen=True)
class Limits:
    """What one payload may use, all its processes together. 0: no limit."""

    memory_bytes: int = 0
    pids: int = 0
    cpus: float = 0.0


NO_LIMITS = Limits()


class ScriptUser(NamedTuple):
    """As whom scripts run."""

    uid: int
    gid: int


@dataclass(frozen=True)
class PayloadRow:
    """A payload as it was when it was read. ``key`` is the server's idempotency key, if it gave
    one; ``refusal`` says why its script must not be run, if so; ``time_limit_s`` is how long it may
    run, None: as long as it takes; ``ended_at`` is in seconds since the epoch."""

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
