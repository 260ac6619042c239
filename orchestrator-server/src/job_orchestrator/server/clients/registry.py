"""What the server knows of its clients: how to call them, how they are, and what they have.

A client that fails is left alone for a growing while (``BACK_OFF_S``). After that one job at a time
is tried on it, until it works again or its event stream shows that it is back.
"""

import heapq
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from job_orchestrator.common.messages import LoadEvent
from job_orchestrator.common.status import ACTIVE_JOB
from job_orchestrator.server.clients.http import ClientApi
from job_orchestrator.server.model import Job, Service

logger = logging.getLogger(__name__)

BACK_OFF_S = (5.0, 30.0, 120.0, 300.0)
"""How long a client is left alone after its first, second, … failure in a row."""


@dataclass
class Client:
    """One client.

    ``slots`` and ``cpu`` are its own report (None: it has made none) and ``load`` all of that, if
    it pushes it; ``jobs`` the active jobs that it has or is being sent, by id, and ``payloads``
    those that it has, by payload. ``discards`` are payloads that it may remove, ``strays`` keys of
    attempts that it may still have although they were given up. ``pushes`` says that its event
    stream is open, ``draining`` that it stops and takes no new jobs.
    """

    api: ClientApi
    slots: int | None = None
    cpu: float | None = None
    load: LoadEvent | None = None
    jobs: dict[int, Job] = field(default_factory=dict)
    payloads: dict[int, Job] = field(default_factory=dict)
    discards: set[int] = field(default_factory=set)
    strays: set[str] = field(default_factory=set)
    pushes: bool = False
    draining: bool = False
    version: str = ""
    failures: int = 0
    left_alone_until: float = 0.0
    on_trial: bool = False
    problem: str = ""

    @property
    def url(self) -> str:
        """The upload URL, which identifies the client."""
        return self.api.urls.upload

    @property
    def state(self) -> str:
        """Connected (its event stream is open), unreachable, polled (an older one) or unknown."""
        if self.pushes:
            return "connected"
        if self.problem:
            return "unreachable"
        return "unknown" if self.cpu is None else "polled"


class ClientPool:
    """All clients, by upload URL. ``now`` gives seconds that only grow. A listener of the store."""

    def __init__(
        self,
        services: Mapping[str, Service],
        now: Callable[[], float],
        client_token: str | None = None,
    ) -> None:
        self._services = services
        self._now = now
        urls = {c.upload: c for service in services.values() for c in service.clients}
        self._clients = {upload: Client(ClientApi(u, client_token)) for upload, u in urls.items()}
        self._has: dict[int, Client] = {}

    def __iter__(self) -> Iterator[Client]:
        return iter(self._clients.values())

    def get(self, url: str | None) -> Client | None:
        """The client with this upload URL; None if it is no longer configured."""
        return self._clients.get(url or "")

    async def close(self) -> None:
        """End all connections."""
        for client in self:
            await client.api.close()

    def track(self, job: Job) -> None:
        """Keep count of who has which active job."""
        if (before := self._has.pop(job.id, None)) is not None:
            known = before.jobs.pop(job.id)
            before.payloads.pop(known.dest_id or 0, None)
        client = self.get(job.client)
        if client is not None and job.status in ACTIVE_JOB:
            self._has[job.id] = client
            client.jobs[job.id] = job
            if job.dest_id is not None:
                client.payloads[job.dest_id] = job

    def plan(self, service: Service, limit: int) -> list[str]:
        """The clients that the next ``limit`` jobs of ``service`` would go to, the best first.

        Each job goes to the client with the most free slots, then the lowest load; to one that is
        known not to answer only if there is no other. Empty: none can be tried now. A client on
        trial after a failure gets one job.
        """
        usable = [self._clients[c.upload] for c in service.clients if self._usable(c.upload)]
        usable = [client for client in usable if not client.problem] or usable
        heap = [(*_preference(client), number) for number, client in enumerate(usable)]
        heapq.heapify(heap)
        planned: list[str] = []
        while heap and len(planned) < min(service.max_runs, limit):
            beyond_slots, cpu, number = heap[0]
            planned.append(usable[number].url)
            if usable[number].failures:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (beyond_slots + 1, cpu, number))
        return planned

    def problem(self, service: Service) -> str:
        """Why no client of ``service`` can be used now; empty if one can."""
        problems = self.problems(service)
        return problems[0] if all(problems) else ""

    def problems(self, service: Service) -> list[str]:
        """Why each client of ``service`` can't be used now; empty for one that can."""
        return [_obstacle(self._clients[urls.upload]) for urls in service.clients]

    def reported(self, client: Client, load: LoadEvent) -> None:
        """A client told how it is."""
        client.slots, client.cpu, client.load = load.slots, load.cpu, load
        client.draining, client.version = load.draining, load.version

    def sending(self, client: Client) -> None:
        """A job is being sent to a client."""
        client.on_trial = client.failures > 0

    def works(self, client: Client) -> None:
        """A client did what it was asked: it is used again without restriction."""
        if client.failures:
            logger.info("Client %s works again", client.api)
        client.failures, client.left_alone_until, client.problem = 0, 0.0, ""
        client.on_trial = False

    def failed(self, client: Client, problem: str) -> float:
        """A client failed: leave it alone. Returns for how long, in seconds.

        What several jobs meet at once is one failure.
        """
        left_s = client.left_alone_until - self._now()
        if left_s > 0:
            return left_s
        pause_s = BACK_OFF_S[min(client.failures, len(BACK_OFF_S) - 1)]
        client.failures += 1
        client.left_alone_until = self._now() + pause_s
        client.problem = problem
        client.on_trial = False
        logger.warning("%s; no new jobs for it for %g s", problem, pause_s)
        return pause_s

    def adopt(self, jobs: Iterable[Job]) -> None:
        """Count the active jobs of an earlier life of the server."""
        for job in jobs:
            self.track(job)

    def _usable(self, url: str) -> bool:
        client = self._clients[url]
        return not (client.on_trial or client.draining) and self._now() >= client.left_alone_until


def _obstacle(client: Client) -> str:
    """Why a client gets no jobs now; empty if it does."""
    if client.draining and not client.problem:
        return f"{client.api} stops, and takes no new jobs"
    return client.problem


def _preference(client: Client) -> tuple[int, float]:
    # A client that reports no slots is taken to have none free beyond what it has: those that do
    # report free ones come first, and among the silent ones the one with the fewest jobs.
    return (
        len(client.jobs) - (client.slots or 0),
        client.cpu if client.cpu is not None else 100.0,
    )
