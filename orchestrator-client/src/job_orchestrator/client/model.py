"""Values of the client: payloads, limits, users. They do no I/O and know neither SQL nor HTTP."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from job_orchestrator.common.messages.resources import NOTHING, Resources
from job_orchestrator.common.status import PayloadStatus


@dataclass(frozen=True)
class Limits:
    """Resources that one payload may use, all its processes together. 0: no limit."""

    memory_bytes: int = 0
    pids: int = 0
    cpus: float = 0.0

    def within(self, share: "Share") -> "Limits":
        """Return these limits, or what a payload has asked for if that is less."""
        return Limits(
            min(self.memory_bytes or share.memory_bytes, share.memory_bytes or self.memory_bytes),
            self.pids,
            min(self.cpus or share.cpus, share.cpus or self.cpus),
        )


NO_LIMITS = Limits()


@dataclass(frozen=True)
class Share:
    """Share of the machine that a payload has asked for; ``gpus`` are indices of devices."""

    cpus: float = 0.0
    memory_bytes: int = 0
    gpus: tuple[int, ...] = ()

    @property
    def any(self) -> bool:
        """True if the payload has asked for anything."""
        return bool(self.cpus or self.memory_bytes or self.gpus)

    @property
    def amounts(self) -> Resources:
        """The amounts of the share."""
        return Resources(self.cpus, self.memory_bytes, len(self.gpus))


NO_SHARE = Share()
"""The share of a payload that only needs a slot."""


class ScriptUser(NamedTuple):
    """User that scripts run as."""

    uid: int
    gid: int


@dataclass(frozen=True)
class PayloadRow:
    """Row of a payload in the store, at the time of reading.

    ``key`` is the server's idempotency key, None if the submit had none. ``refusal`` is the reason
    why the script must not be run; empty: it may be run. ``time_limit_s`` is how long the script
    may run; None: without a limit. ``queued``: it is Running for this client, but waits in the
    queue of the executor (see ``reported_status``). ``packing``: its script has ended, so it holds
    no slot, and its results are being packed. ``ended_at`` is in seconds since the epoch.
    ``results_sha256`` is the digest of the packed results, None if there are none. ``cpus``,
    ``memory_bytes`` and ``gpus`` are what the job asks for, 0 if it asks for none. ``run_s`` is how
    long the script ran, None before its end.
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
    cpus: float = 0.0
    memory_bytes: int = 0
    gpus: int = 0
    run_s: float | None = None
    queued: bool = False

    @classmethod
    def of(cls, values: Sequence[Any]) -> "PayloadRow":
        """Return the row with these values of its fields, as SQLite has them."""
        named = dict(zip(cls.__dataclass_fields__, values, strict=True))
        named["status"] = PayloadStatus(named["status"])
        named["killed"] = bool(named["killed"])
        named["packing"] = bool(named["packing"])
        named["queued"] = bool(named["queued"])
        return cls(**named)

    def taken_over(self) -> "PayloadRow":
        """Return the row with which a new process continues: the executor may have its run."""
        if self.status.has_ended:
            return self
        return replace(self, status=PayloadStatus.RUNNING, queued=True)

    @property
    def reported_status(self) -> PayloadStatus:
        """The status that servers see: Prepared until the script has begun."""
        is_running = self.status is PayloadStatus.RUNNING
        return PayloadStatus.PREPARED if is_running and self.queued else self.status

    @property
    def wanted(self) -> Resources:
        """Resources that the job asks for in addition to a slot."""
        if not (self.cpus or self.memory_bytes or self.gpus):
            return NOTHING
        return Resources(self.cpus, self.memory_bytes, self.gpus)
