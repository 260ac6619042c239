"""Fitting of jobs that ask for resources: which client each goes to, and what is reserved.

A job goes to the client on which the least is left unused. The first job in the order that fits
nowhere gets a reservation on one client: until it has started, other jobs start there only if they
leave room for it. So a wide job starts at the latest when the jobs have ended that ran on that
client when it was reserved, however many narrow jobs wait.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from job_orchestrator.common.messages.resources import NOTHING, Resources
from job_orchestrator.server.clients.registry import Client
from job_orchestrator.server.model import Job, Service
from job_orchestrator.server.scheduling.base import Limits, SchedulingPolicy
from job_orchestrator.server.scheduling.placement import Candidate, candidate
from job_orchestrator.server.store.queue import QueuedJob, Start, WaitingUser

NO_FREE_SLOT = "No slot is free"
NO_ROOM = "The job asks for more than is free"
KEPT = "What is free is kept for a job that asks for more"


class Occupant(NamedTuple):
    """A job that a client runs: what it uses, and when its time limit ends it (inf: never)."""

    wanted: Resources
    until: float


class Reservation(NamedTuple):
    """A client that is kept for a job. ``earlier`` are the jobs whose ends the job waits for.

    They have ended ``until`` then by their time limits; inf if one of them has none.
    """

    client: str
    job: int
    wanted: Resources
    earlier: frozenset[int]
    until: float


@dataclass
class Machine:
    """State of a client while jobs are fitted: its free slots and resources, and its jobs."""

    candidate: Candidate
    total: Resources
    free: Resources
    jobs: dict[int, Occupant]
    slots: float = field(init=False)

    def __post_init__(self) -> None:
        self.slots = self.candidate.room

    @property
    def name(self) -> str:
        """Name of the client."""
        return self.candidate.name

    def add(self, job: QueuedJob, until: float) -> None:
        """Count a job that is sent to the client."""
        self.slots -= 1
        self.free = self.free.less(job.wanted)
        self.jobs[job.id] = Occupant(job.wanted, until)

    def room_at(self, wanted: Resources) -> float:
        """Return when time limits have made room for ``wanted``; inf if they never do."""
        free, slots = self.free, self.slots
        for each in sorted(self.jobs.values(), key=lambda occupant: occupant.until):
            if slots >= 1 and free.hold(wanted):
                return 0.0
            if each.until == math.inf:
                break
            free, slots = free + each.wanted, slots + 1
            if slots >= 1 and free.hold(wanted):
                return each.until
        return math.inf


def machine_of(client: Client, services: Mapping[str, Service], now: float) -> Machine:
    """Return the state of a client, with the jobs of all services."""
    jobs = {
        job.id: Occupant(job.wanted, _until(job, services.get(job.service), now))
        for job in client.jobs.values()
        if job.id not in client.packing
    }
    # No job is sent ahead of a free slot while some are reserved.
    return Machine(candidate(client, 0), client.offer, client.offer.less(client.used), jobs)


def _until(job: Job, service: Service | None, now: float) -> float:
    limits = (job.time_limit_s, service.time_limit_s if service else None)
    limit_s = min((each for each in limits if each is not None), default=math.inf)
    return (now if job.started_at is None else job.started_at) + limit_s


class Fitting:
    """One pass over all services: what is left of each client, and the reservations.

    ``services`` has the clients of each service that can be used now. Reservations on other clients
    are dropped. ``reservations`` are as of the end of the pass.
    """

    def __init__(
        self,
        machines: Iterable[Machine],
        services: Mapping[str, Sequence[str]],
        reservations: Mapping[str, Reservation],
        now: float,
    ) -> None:
        self._machines = {machine.name: machine for machine in machines}
        self._services = services
        self._now = now
        self.reservations = {
            service: each
            for service, each in reservations.items()
            if each.client in services.get(service, ())
        }
        self._turns: dict[str, int] = {}
        self._offered: Counter[str] = Counter()
        self._last_turn = max((m.candidate.turn for m in self._machines.values()), default=0)

    def reserved(self, service: str) -> bool:
        """Return whether a client of ``service`` is reserved."""
        names = self._services[service]
        return any(each.client in names for each in self.reservations.values())

    def offer(self, clients: Sequence[str]) -> None:
        """Restrict the next service to these slots: others may have taken some already."""
        self._offered = Counter(clients)

    def place(self, service: str, job: QueuedJob, limit_s: float | None) -> str | None:
        """Return the client that a job is sent to now; None if it must wait.

        A job that asks for resources and must wait gets the reservation of its service, if there is
        none.
        """
        until = math.inf if limit_s is None else self._now + limit_s
        machines = [self._machines[name] for name in self._services[service]]
        fitting = [machine for machine in machines if not self._obstacle(machine, job, until)]
        if fitting:
            best = min(fitting, key=lambda machine: self._waste(machine, job.wanted))
            best.add(job, until)
            self._offered[best.name] -= 1
            self._last_turn += 1
            self._turns[best.name] = self._last_turn
            if self._holds(service, job.id):
                del self.reservations[service]
            return best.name
        if job.wanted and service not in self.reservations:
            self._reserve(service, job, machines)
        return None

    def obstacle(self, client: str, job: QueuedJob, limit_s: float | None) -> str:
        """Say why a job can't be sent to a client now; empty if it can."""
        until = math.inf if limit_s is None else self._now + limit_s
        return self._obstacle(self._machines[client], job, until)

    def _obstacle(self, machine: Machine, job: QueuedJob, until: float) -> str:
        if self._offered[machine.name] <= 0 or machine.slots < 1:
            return NO_FREE_SLOT
        if not machine.free.hold(job.wanted):
            return NO_ROOM
        return "" if self._leaves_room(machine, job, until) else KEPT

    def _holds(self, service: str, job_id: int) -> bool:
        reservation = self.reservations.get(service)
        return reservation is not None and reservation.job == job_id

    def _leaves_room(self, machine: Machine, job: QueuedJob, until: float) -> bool:
        """Return whether a job may start on a client without delaying the one it is kept for."""
        kept = next((r for r in self.reservations.values() if r.client == machine.name), None)
        if kept is None or kept.job == job.id or until <= kept.until < math.inf:
            return True
        beside, slots = kept.wanted + job.wanted, 2.0
        for number, each in machine.jobs.items():
            if number not in kept.earlier and not each.until <= kept.until < math.inf:
                beside, slots = beside + each.wanted, slots + 1
        all_slots = math.inf if machine.candidate.slots is None else machine.candidate.slots
        return slots <= all_slots and machine.total.hold(beside)

    def _waste(self, machine: Machine, wanted: Resources) -> tuple[float, ...]:
        """Return how unsuitable a client is: what would be unused, then its load, then its turn."""
        left, total, each = machine.free.less(wanted), machine.total, machine.candidate
        turn = self._turns.get(each.name, each.turn)
        if not wanted:
            return (left.gpus, -machine.slots, each.load, turn)
        unused = left.cpus / max(total.cpus, 1) + left.memory_bytes / max(total.memory_bytes, 1)
        return (left.gpus, round(unused, 3), each.load, turn)

    def _reserve(self, service: str, job: QueuedJob, machines: Sequence[Machine]) -> None:
        taken = {each.client for each in self.reservations.values()}
        large = [
            machine
            for machine in machines
            if machine.name not in taken
            and machine.total.hold(job.wanted)
            and (machine.candidate.slots is None or machine.candidate.slots >= 1)
        ]
        if not large:
            return
        times = {machine.name: machine.room_at(job.wanted) for machine in large}
        best = min(
            large, key=lambda machine: (times[machine.name], *self._waste(machine, job.wanted))
        )
        self.reservations[service] = Reservation(
            best.name, job.id, job.wanted, frozenset(best.jobs), times[best.name]
        )


def arrange(
    fitting: Fitting,
    service: Service,
    policy: SchedulingPolicy,
    limits: Limits,
    active: int,
    offered: Sequence[str],
    waiting: Sequence[WaitingUser],
    everywhere: Mapping[int, int],
) -> list[Start]:
    """Return the jobs of one service to start, with their clients, in order.

    The policy chooses users within the limits, as ever. A user whose jobs fit nowhere is passed
    over. The job that holds the reservation comes first, as long as the limits allow it.
    """
    slots = len(offered)
    fitting.offer(offered)
    starts: list[Start] = []
    started: set[int] = set()
    too_wide: set[tuple[Resources, float | None]] = set()

    def start(user_id: int, job: QueuedJob) -> bool:
        limit_s = time_limit_s(job, service)
        if (job.wanted, limit_s) in too_wide:
            return False
        client = fitting.place(service.name, job, limit_s)
        if client is None:
            too_wide.add((job.wanted, limit_s))
            return False
        started.add(job.id)
        starts.append(Start(user_id, client, job.id))
        return True

    def admit(user: WaitingUser, chosen: int) -> bool:
        return any(start(user.user_id, job) for job in user.next if job.id not in started)

    holder = fitting.reservations.get(service.name)
    if holder is not None:
        waits = [user for user in waiting if any(job.id == holder.job for job in user.next)]
        if not waits or not policy.choose(limits, active, 1, waits, everywhere):
            del fitting.reservations[service.name]
        elif start(waits[0].user_id, next(j for j in waits[0].next if j.id == holder.job)):
            user_id = waits[0].user_id
            waiting = [
                user if user is not waits[0] else _without(user, started) for user in waiting
            ]
            everywhere = {**everywhere, user_id: everywhere.get(user_id, 0) + 1}
            active, slots = active + 1, slots - 1
        else:
            too_wide.clear()
    policy.choose(limits, active, slots, waiting, everywhere, admit)
    return starts


def time_limit_s(job: QueuedJob, service: Service) -> float | None:
    """Return how long a job may run; None means without a limit."""
    limits = (job.time_limit_s, service.time_limit_s)
    return min((each for each in limits if each is not None), default=None)


def _without(user: WaitingUser, started: set[int]) -> WaitingUser:
    return replace(
        user,
        queued=user.queued - 1,
        active=user.active + 1,
        next=tuple(job for job in user.next if job.id not in started),
        tokens=None if user.tokens is None else user.tokens - 1,
    )


def largest(offers: Iterable[Resources]) -> Resources:
    """Return the most of each resource that one of several clients offers."""
    best = NOTHING
    for each in offers:
        best = Resources(
            max(best.cpus, each.cpus),
            max(best.memory_bytes, each.memory_bytes),
            max(best.gpus, each.gpus),
        )
    return best
