"""Registry of compute clients: connection, health, reported load and assigned jobs.

A client that fails gets no jobs for a growing time (``Tuning.client_backoff``). After that one job
at a time is tried on it, until it works again or its event stream shows that it is back.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from job_orchestrator.common.messages.payloads import ClientLimits, LoadEvent
from job_orchestrator.common.messages.resources import NOTHING, Resources
from job_orchestrator.common.runtime.backoff import Backoff
from job_orchestrator.common.status import ACTIVE_JOB, JobStatus
from job_orchestrator.server.clients.agreement import ServerLimits, contradictions
from job_orchestrator.server.clients.base import ClientTransport
from job_orchestrator.server.clients.connector import TunnelConnector
from job_orchestrator.server.model import Job, Registration, Service

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Client:
    """One client and what the server knows of it.

    ``turn`` is the number of the last job that it was given.
    ``slots`` and ``cpu`` are as the client reported them (None: it has not), ``load`` is the last
    event with both, which older clients don't send. ``jobs`` are the active jobs that the client
    has or is being sent, by id; ``payloads`` those that it has, by payload id. ``packing`` are the
    ids of jobs whose script has ended, so that they occupy no slot; ``foreign`` counts slots that
    payloads of other servers occupy, ``foreign_resources`` what these have asked for.
    ``unacknowledged`` are payloads whose results are stored here, ``abandoned`` the keys of
    abandoned attempts that may still run there. ``pushes``: its event stream is open;
    ``has_events``: it is not an older version that has none. ``draining``: it takes no new jobs,
    because it is stopping or its machine has a fault. ``drained``: an administrator wants that it
    gets no jobs. ``registration`` is that of a client that has registered itself, else None, and
    ``connector`` its tunnel. ``failures`` counts failures in a row;
    ``on_trial``: a job is being sent to find out whether the client works again. ``problem`` says
    why it can't be used, ``warnings`` which of its settings contradict those of the server.
    """

    transport: ClientTransport
    turn: int = 0
    slots: int | None = None
    cpu: float | None = None
    load: LoadEvent | None = None
    jobs: dict[int, Job] = field(default_factory=dict)
    payloads: dict[int, Job] = field(default_factory=dict)
    packing: set[int] = field(default_factory=set)
    foreign: int = 0
    foreign_resources: Resources = NOTHING
    unacknowledged: set[int] = field(default_factory=set)
    abandoned: set[str] = field(default_factory=set)
    pushes: bool = False
    has_events: bool = True
    draining: bool = False
    drained: bool = False
    registration: Registration | None = None
    connector: TunnelConnector | None = None
    version: str = ""
    warnings: tuple[str, ...] = ()
    failures: int = 0
    backs_off_until: float = 0.0
    on_trial: bool = False
    problem: str = ""

    @property
    def name(self) -> str:
        """The name that identifies the client."""
        return self.transport.name

    @property
    def occupied(self) -> int:
        """Number of slots that are occupied, or will be by jobs that the client has or is sent."""
        return len(self.jobs) - len(self.packing) + self.foreign

    @property
    def offer(self) -> Resources:
        """Resources of its machine for jobs that ask for some; older clients offer none."""
        return self.load.resources or NOTHING if self.load is not None else NOTHING

    @property
    def runs_tasks(self) -> bool:
        """True if it can run tasks of arrays: scripts get their index. Older clients can't."""
        return self.load is not None and self.load.arrays

    @property
    def used(self) -> Resources:
        """Resources that the jobs have asked for which occupy its slots."""
        own = [job.wanted for job in self.jobs.values() if job.id not in self.packing]
        return sum((each for each in own if each), start=self.foreign_resources)

    @property
    def is_connected(self) -> bool:
        """True if the client can be reached: its event stream is open, or it answers when polled.

        False before the first connection.
        """
        return self.pushes or (not self.has_events and self.cpu is not None and not self.problem)

    @property
    def fault(self) -> str:
        """The fault of its machine that the client has reported; empty if there is none."""
        return self.load.problem if self.load is not None and self.draining else ""

    @property
    def state(self) -> str:
        """One of connected (its event stream is open), unreachable, polled (older) or unknown."""
        if self.pushes:
            return "connected"
        if self.problem:
            return "unreachable"
        return "unknown" if self.cpu is None else "polled"


class ClientRegistry:
    """The configured and the registered clients, by name. ``clock`` returns monotonic seconds."""

    def __init__(
        self,
        transports: Iterable[ClientTransport],
        backoff: Backoff,
        clock: Callable[[], float],
        limits: ServerLimits | None = None,
    ) -> None:
        """Create the registry. ``limits`` are what those of each client must agree with."""
        self._clients = {transport.name: Client(transport) for transport in transports}
        # Registered clients by service, which the settings do not name.
        self._registered: dict[str, list[Client]] = {}
        self._backoff = backoff
        self._clock = clock
        self._limits = limits or ServerLimits()
        self._assigned: dict[int, Client] = {}
        self._turn = 0
        self._capacity_subscribers: list[Callable[[], None]] = []

    def subscribe_to_capacity(self, subscriber: Callable[[], None]) -> None:
        """Call ``subscriber`` when a client may take more jobs than before, apart from ends."""
        self._capacity_subscribers.append(subscriber)

    def __iter__(self) -> Iterator[Client]:
        return iter(self._clients.values())

    def get(self, name: str | None) -> Client | None:
        """Return the client of this name; None if it is not (or no longer) configured."""
        return self._clients.get(name or "")

    def of(self, job: Job) -> Client | None:
        """Return the client that has a job, None if there is none any more.

        A name may belong to another registered client by now: one that may not serve the service of
        the job must not answer for it.
        """
        client = self.get(job.client)
        if client is None or client.registration is None:
            return client
        return client if job.service in client.registration.services else None

    def register(
        self, transport: ClientTransport, registration: Registration, connector: TunnelConnector
    ) -> Client:
        """Add a client that has registered itself."""
        client = Client(transport, registration=registration, connector=connector)
        self._clients[client.name] = client
        self.update(client, registration)
        return client

    def update(self, client: Client, registration: Registration) -> None:
        """Replace the registration of a client, whose services may be others."""
        self._drop(client)
        client.registration = registration
        for service in registration.services:
            self._registered.setdefault(service, []).append(client)

    def remove(self, client: Client) -> None:
        """Drop a registered client. It has no jobs."""
        self._drop(client)
        self._clients.pop(client.name, None)

    def drain(self, client: Client, *, drained: bool) -> None:
        """Give a client no more jobs, or give it jobs again."""
        client.drained = drained
        self._notify_capacity()

    def _drop(self, client: Client) -> None:
        for clients in self._registered.values():
            if client in clients:
                clients.remove(client)

    async def close(self) -> None:
        """Close all connections."""
        for client in self:
            await client.transport.close()

    def on_job_changed(self, job: Job) -> None:
        """Update which client has the job, if it is active."""
        if (before := self._assigned.pop(job.id, None)) is not None:
            known = before.jobs.pop(job.id)
            before.packing.discard(job.id)
            before.payloads.pop(known.dest_id or 0, None)
        client = self.get(job.client)
        if client is not None and job.status in ACTIVE_JOB:
            self._assigned[job.id] = client
            if job.status is JobStatus.PROCESSING:
                self._turn += 1
                client.turn = self._turn
            client.jobs[job.id] = job
            if job.dest_id is not None:
                client.payloads[job.dest_id] = job

    def of_service(self, service: Service) -> list[Client]:
        """Return the clients of ``service``."""
        configured = [self._clients[name] for name in service.client_names]
        return [*configured, *self._registered.get(service.name, ())]

    def usable(self, service: Service) -> list[Client]:
        """Return the clients of ``service`` that a job may be sent to now, if a slot is free.

        These are connected. So a client that can't be reached costs no job an attempt.
        """
        now = self._clock()
        return [
            client
            for client in self.of_service(service)
            if client.is_connected
            and not (client.on_trial or client.draining or client.drained)
            and now >= client.backs_off_until
        ]

    def working(self, service: Service) -> list[Client]:
        """Return the clients of ``service`` without a known problem."""
        return [client for client in self.of_service(service) if not _obstacle(client)]

    def problem(self, service: Service) -> str:
        """Say why no client of ``service`` can be used now; empty if one can."""
        problems = self.problems(service)
        return problems[0] if all(problems) else ""

    def problems(self, service: Service) -> list[str]:
        """Say for each client of ``service`` why it can't be used now; empty for one that can."""
        problems = [_obstacle(client) for client in self.of_service(service)]
        return problems or [f"no client is registered for {service.name}"]

    def on_load(self, client: Client, load: LoadEvent) -> None:
        """Record the load that a client has reported."""
        before = (client.slots, client.foreign, client.draining, client.offer, client.runs_tasks)
        client.slots, client.cpu, client.load = load.slots, load.cpu, load
        client.draining, client.version = load.draining, load.version
        self._compare_settings(client, load.limits)
        # Jobs that are being sent may or may not be in the report: they count as if they were.
        own = len(client.jobs) - len(client.packing)
        client.foreign = max(load.running + load.waiting - own, 0)
        client.foreign_resources = NOTHING
        if load.resources_used:
            client.foreign_resources = load.resources_used.less(client.used)
        now = (client.slots, client.foreign, client.draining, client.offer, client.runs_tasks)
        if now != before:
            self._notify_capacity()

    def offers(self, service: Service) -> Sequence[Resources]:
        """Return what each client of ``service`` offers; nothing if one has never said so.

        Nothing is known of clients that may register themselves later.
        """
        clients = () if service.registered else self.of_service(service)
        known = [client for client in clients if client.load is not None or not client.has_events]
        return [client.offer for client in clients] if len(known) == len(clients) else ()

    def refuses_tasks(self, service: Service) -> bool:
        """Return whether no client of ``service`` can run tasks; false if that is not known."""
        clients = self.of_service(service)
        known = [client for client in clients if client.load is not None or not client.has_events]
        return len(known) == len(clients) and not any(client.runs_tasks for client in clients)

    def max_upload_bytes(self, service: Service) -> int | None:
        """Return the size of files that every client of ``service`` takes; None if not known.

        The smallest limit counts, because each client may be given any job of the service.
        """
        loads = [client.load for client in self.of_service(service)]
        sizes = [load.limits.max_upload_bytes for load in loads if load and load.limits]
        return min(sizes, default=None)

    def _compare_settings(self, client: Client, limits: ClientLimits | None) -> None:
        found = () if limits is None else tuple(contradictions(limits, self._limits))
        for problem in set(found) - set(client.warnings):
            logger.warning("Client %s: %s", client.name, problem)
        client.warnings = found

    def on_packing(self, client: Client, job: Job) -> None:
        """Record that a job's script has ended, so that its slot is free."""
        if job.id in client.jobs:
            client.packing.add(job.id)
            self._notify_capacity()

    def mark_connected(self, client: Client) -> None:
        """Record that a client has become reachable."""
        client.draining = False  # if it is, its first event says so
        self.mark_working(client)
        self._notify_capacity()

    def begin_attempt(self, client: Client) -> None:
        """Record that a job is being sent. To a client that failed before, this is a trial."""
        client.on_trial = client.failures > 0

    def mark_working(self, client: Client) -> None:
        """Record that a client did what was requested: it is used again without restriction."""
        failed_before = client.failures > 0
        client.failures, client.backs_off_until, client.problem = 0, 0.0, ""
        client.on_trial = False
        if failed_before:
            logger.info("Client %s works again", client.name)
            self._notify_capacity()

    def mark_failed(self, client: Client, problem: str) -> float:
        """Record a failure. Returns for how many seconds the client gets no jobs.

        Failures of several jobs at the same time are one failure of the client.
        """
        left_s = client.backs_off_until - self._clock()
        if left_s > 0:
            return left_s
        client.failures += 1
        delay_s = self._backoff.delay_s(client.failures)
        client.backs_off_until = self._clock() + delay_s
        client.problem = problem
        client.on_trial = False
        logger.warning("%s; no new jobs for it for %g s", problem, delay_s)
        return delay_s

    def _notify_capacity(self) -> None:
        for subscriber in self._capacity_subscribers:
            subscriber()


def _obstacle(client: Client) -> str:
    if client.drained and not client.problem:
        return f"{client.name} is drained: it gets jobs again when an administrator resumes it"
    if client.fault and not client.problem:
        return f"{client.name} can't run jobs at present: {client.fault}"
    if client.draining and not client.problem:
        return f"{client.name} is stopping and takes no new jobs"
    return client.problem
