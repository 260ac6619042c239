"""Reasons why queued jobs wait: problems of machines, and limits that are reached."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from job_orchestrator.server.clients.registry import Client, ClientRegistry
from job_orchestrator.server.jobs.reasons import reason_for, with_details
from job_orchestrator.server.model import Job, Service
from job_orchestrator.server.scheduling.base import Limits
from job_orchestrator.server.scheduling.rules import Rules

ALL_UNUSABLE = "No machine of this service can be used at present"
MAX_NAMED = 10
"""Jobs that a reason names."""
OF_USER = "of this user's jobs are active"
"""Part of the reason of a job that waits for other jobs of its user."""


@dataclass(frozen=True)
class Hindrances:
    """Finds what keeps queued jobs from their start, in the words of their users."""

    clients: ClientRegistry
    services: Mapping[str, Service]
    rules: Rules

    def obstacle(self, job: Job, *, details: bool) -> str:
        """Say why no queued job of this service can start now; empty if one can."""
        service = self.services.get(job.service)
        if service is None:
            return "This service is not configured now"
        problem = self.clients.problem(service)
        return reason_for(with_details(ALL_UNUSABLE, problem), details=details) if problem else ""

    def of(self, job: Job, *, details: bool) -> str:
        """Say why a queued job can't start now; empty if it can."""
        return (
            self.waits_for(job)
            or self.on_hold(job)
            or self.obstacle(job, details=details)
            or self._limit_reached(job)
        )

    def waits_for(self, job: Job) -> str:
        """Name the jobs that must end before a queued job starts; empty if none must."""
        if not job.open_dependencies:
            return ""
        ids = sorted({*job.after_success, *job.after_end})
        names = ", ".join(map(str, ids[:MAX_NAMED])) + (", …" if len(ids) > MAX_NAMED else "")
        if len(ids) == 1:
            return f"It waits for job {names}"
        if job.open_dependencies == len(ids):
            return f"It waits for jobs {names}"
        return f"It waits for {job.open_dependencies} of the jobs {names}"

    def on_hold(self, job: Job) -> str:
        """Say who keeps a queued job from its start; empty if nobody does."""
        if job.held:
            return "It is on hold until it is released"
        if job.service in self.rules.pauses.services:
            return f"An administrator has paused the service {job.service}"
        if job.user_id in self.rules.pauses.users:
            return "An administrator has paused the jobs of this user"
        return ""

    def active_of_users(self) -> Counter[int]:
        """Count the active jobs of each user in all services."""
        return Counter(job.user_id for client in self.clients for job in client.jobs.values())

    def _limit_reached(self, job: Job) -> str:
        service = self.services.get(job.service)
        if service is None:
            return ""
        return (
            self._limit_of_user(job, service)
            or self._limit_of_all(service)
            or self._slots_are_busy(job, service)
            or self._no_room(job, service)
        )

    def _limit_of_user(self, job: Job, service: Service) -> str:
        limits = self.rules.limits(service)
        of_user = self.active(service, job.user_id)
        most = limits.ceiling(job.user_id)
        if of_user >= most:
            return f"{of_user} {OF_USER}, of at most {most}"
        if total := limits.of_all_services(job.user_id):
            everywhere = self.active_of_users()[job.user_id]
            if everywhere >= total:
                return f"{everywhere} {OF_USER} in all services, of at most {total}"
        return self._limit_of_groups(job.user_id, limits)

    def _limit_of_groups(self, user_id: int, limits: Limits) -> str:
        names = [name for name in limits.terms(user_id).groups if name in limits.groups]
        if not names:
            return ""
        of_groups = limits.active_of_groups(self.active_of_users())
        for name in names:
            if of_groups[name] >= limits.groups[name]:
                return (
                    f"{of_groups[name]} jobs of the group {name} are active, of at most"
                    f" {limits.groups[name]}"
                )
        return ""

    def _limit_of_all(self, service: Service) -> str:
        active = self.active(service)
        if active >= service.max_runs:
            return f"{active} jobs of {service.name} are active, of at most {service.max_runs}"
        if total := self.rules.shared.total:
            everywhere = sum(len(client.jobs) for client in self.clients)
            if everywhere >= total:
                return f"{everywhere} jobs of all services are active, of at most {total}"
        return ""

    def _slots_are_busy(self, job: Job, service: Service) -> str:
        usable = [client for client in self.clients.usable(service) if client.slots is not None]
        slots = sum(client.slots or 0 for client in usable)
        free = sum(max(_free(client), 0) for client in usable)
        if slots and free == 0:
            return f"All {slots} slots of this service's machines are busy"
        limits = self.rules.limits(service)
        borrows = self.active(service, job.user_id) >= limits.guaranteed(job.user_id)
        if slots and borrows and free <= limits.reserve:
            return (
                f"The {free} free slots of this service's machines are kept for users with fewer"
                " active jobs"
            )
        return ""

    def _no_room(self, job: Job, service: Service) -> str:
        """Say why a job that asks for resources waits although slots are free."""
        wanted = job.wanted
        usable = [client for client in self.clients.usable(service) if client.slots]
        if not wanted or not usable:
            return ""
        large = [client for client in usable if client.offer.hold(wanted)]
        if not large:
            return f"No machine of this service that can be used now has {wanted}"
        room = [c for c in large if c.offer.less(c.used).hold(wanted) and _free(c) > 0]
        return "" if room else f"It asks for {wanted}, which no machine has free at present"

    def active(self, service: Service, user_id: int | None = None) -> int:
        """Count the active jobs of a service, of one user or of all."""
        return sum(
            job.service == service.name and user_id in (None, job.user_id)
            for client in self.clients.of_service(service)
            for job in client.jobs.values()
        )


def _free(client: Client) -> int:
    return (client.slots or 0) - client.occupied
