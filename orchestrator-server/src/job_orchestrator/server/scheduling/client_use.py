"""Use of shared clients by each service, so that services share them by weight."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

from job_orchestrator.server.clients.registry import Client
from job_orchestrator.server.model import Service
from job_orchestrator.server.store.usage import Usage

RunTime = Callable[[str], float]


class ClientUse:
    """Slot-seconds that each service has used of the clients that it shares; they decay.

    It is in memory: after a start of the server all services begin with what they run. ``observe``
    is called whenever a job may have started or ended.
    """

    def __init__(self, services: Iterable[Service], half_life_s: float) -> None:
        sharers: defaultdict[str, list[str]] = defaultdict(list)
        for service in services:
            for client in service.client_names:
                sharers[client].append(service.name)
        self._sharers = {client: names for client, names in sharers.items() if len(names) > 1}
        self._half_life_s = half_life_s
        self._usages: defaultdict[tuple[str, str], Usage] = defaultdict(Usage)

    def observe(self, clients: Iterable[Client], now: float) -> None:
        """Record which slots each service holds from ``now`` on."""
        for client in clients:
            if client.registration is not None and len(client.registration.services) > 1:
                self._sharers[client.name] = list(client.registration.services)
            if client.name not in self._sharers:
                continue
            held = Counter(
                job.service for job in client.jobs.values() if job.id not in client.packing
            )
            for name in self._sharers[client.name]:
                usage = self._usages[client.name, name]
                self._usages[client.name, name] = usage.holding(held[name], now, self._half_life_s)

    def used_s(self, service: Service, run_s: float) -> Mapping[str, float]:
        """Return what a service has used of each shared client, with what its jobs will add."""
        return {
            client: self._usages[client, service.name].seconds
            + self._usages[client, service.name].slots * run_s
            for client, names in self._sharers.items()
            if service.name in names
        }
