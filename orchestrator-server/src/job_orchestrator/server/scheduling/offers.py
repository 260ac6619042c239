"""Offers: the free slots of each service, with the rules by which its next jobs are chosen."""

from collections.abc import Callable, Mapping, Sequence

from job_orchestrator.server.clients.registry import ClientRegistry
from job_orchestrator.server.model import Service
from job_orchestrator.server.scheduling.client_use import ClientUse
from job_orchestrator.server.scheduling.fitting import (
    Fitting,
    Reservation,
    arrange,
    machine_of,
)
from job_orchestrator.server.scheduling.look_ahead import look_ahead
from job_orchestrator.server.scheduling.placement import candidate, place
from job_orchestrator.server.scheduling.rules import Rules
from job_orchestrator.server.store.queue import Arrange, Offer, Start, WaitingUser

MAX_CLAIMS = 50
"""Jobs of one service that are claimed in one transaction, so that it is short."""


class Offers:
    """Makes offers from the state of the clients, the rules, and the reservations.

    The dispatcher claims jobs by them, and replaces ``reservations`` after each claim. ``now``
    returns seconds since the epoch, ``half_life_s`` is that of what services use of shared clients.
    """

    def __init__(
        self,
        registry: ClientRegistry,
        rules: Rules,
        services: Mapping[str, Service],
        half_life_s: float,
        now: Callable[[], float],
    ) -> None:
        self.reservations: Mapping[str, Reservation] = {}
        self._registry = registry
        self._rules = rules
        self._services = services
        self._now = now
        self._client_use = ClientUse(services.values(), half_life_s)

    def observe(self) -> None:
        """Record which slots of shared clients each service holds from now on."""
        self._client_use.observe(self._registry, self._now())

    def placed(self, service: Service) -> Sequence[str]:
        """Return the clients that the next jobs of ``service`` go to, one for each job."""
        candidates = []
        for client in self._registry.usable(service):
            ahead = 0
            if client.slots is not None and client.transport.can_recall:
                jobs = (job for job in client.jobs.values() if job.id not in client.packing)
                ahead = look_ahead(
                    service.name, self._rules.run_time, client.slots, jobs, self._now()
                )
            candidates.append(candidate(client, ahead))
        # The reserve is counted in free slots, so they are all named.
        most = MAX_CLAIMS + self._rules.shared.reserve
        return place(candidates, min(service.max_runs, most))

    def fitting(self) -> Fitting:
        """Return what is left of each client, for a pass over jobs that ask for resources."""
        usable = {
            service.name: [client.name for client in self._registry.usable(service)]
            for service in self._services.values()
        }
        now = self._now()
        machines = [
            machine_of(client, self._services, now)
            for client in self._registry
            if any(client.name in names for names in usable.values())
        ]
        return Fitting(machines, usable, self.reservations, now)

    def offer(
        self,
        service: Service,
        clients: Sequence[str],
        holders: Sequence[int],
        fitting: Fitting | None,
    ) -> Offer:
        """Return the offer of a service's ``clients``. ``fitting`` is None if no job is sized."""
        limits, policy = self._rules.limits(service), self._rules.policy(service)

        def decide(
            active: int, slots: int, waiting: Sequence[WaitingUser], everywhere: Mapping[int, int]
        ) -> Sequence[int]:
            return policy.choose(limits, active, slots, waiting, everywhere)

        return Offer(
            service.max_runs,
            clients,
            decide,
            holders,
            in_order=policy.in_order,
            everywhere=limits.depend_on_other_services,
            rate_of=self._rules.start_rate if self._rules.limit_starts else None,
            arrange=None if fitting is None else self._arrangement(service, fitting),
            reserved=fitting is not None and fitting.reserved(service.name),
            weight=service.weight,
            used_s=self._client_use.used_s(service, limits.run_s),
            run_s=limits.run_s,
        )

    def _arrangement(self, service: Service, fitting: Fitting) -> Arrange:
        limits, policy = self._rules.limits(service), self._rules.policy(service)

        def arrange_jobs(
            active: int,
            offered: Sequence[str],
            waiting: Sequence[WaitingUser],
            everywhere: Mapping[int, int],
        ) -> Sequence[Start]:
            return arrange(fitting, service, policy, limits, active, offered, waiting, everywhere)

        return arrange_jobs
