"""Use of limits: for each limit that concerns a user, how much of it is used."""

from collections.abc import Mapping, Sequence

from job_orchestrator.common.messages.explanation import LimitUse
from job_orchestrator.server.model import Rate
from job_orchestrator.server.scheduling.base import Limits


def use_in_service(limits: Limits, service: str, user_id: int, active: int) -> Sequence[LimitUse]:
    """Return the limits of a user in one service, where the user has ``active`` jobs."""
    guaranteed, ceiling = limits.guaranteed(user_id), limits.ceiling(user_id)
    found = [_use("user_and_service", service, active, guaranteed)]
    if ceiling > guaranteed:
        found.append(_use("borrowing", service, active, ceiling))
    return found


def use_of_user(limits: Limits, user_id: int, everywhere: Mapping[int, int]) -> Sequence[LimitUse]:
    """Return the limits of a user over all services: the user's, and those of the user's groups.

    ``everywhere`` has the active jobs of each user in all services.
    """
    found = []
    if total := limits.of_all_services(user_id):
        found.append(_use("user", "", everywhere.get(user_id, 0), total))
    in_groups = limits.active_of_groups(everywhere)
    for name in limits.terms(user_id).groups:
        if name in limits.groups:
            found.append(_use("group", name, in_groups[name], limits.groups[name]))
    return found


def use_of_groups(limits: Limits, everywhere: Mapping[int, int]) -> Sequence[LimitUse]:
    """Return the limit of each group."""
    in_groups = limits.active_of_groups(everywhere)
    return [_use("group", name, in_groups[name], most) for name, most in limits.groups.items()]


def use_of_service(limits: Limits, service: str, active: int) -> LimitUse:
    """Return the limit of a service that has ``active`` jobs."""
    return _use("service", service, active, limits.per_service)


def use_of_total(limits: Limits, everywhere: Mapping[int, int]) -> Sequence[LimitUse]:
    """Return the limit of all jobs, if there is one."""
    if not limits.total:
        return []
    return [_use("total", "", sum(everywhere.values()), limits.total)]


def use_of_rate(rate: Rate, tokens: float) -> LimitUse:
    """Return how much of a rate a user has used, of the jobs that it allows in a row."""
    used = round(max(rate.burst - tokens, 0.0), 2)
    return LimitUse(kind="rate", name=str(rate), used=used, limit=rate.burst, reached=tokens < 1)


def _use(kind: str, name: str, used: int, limit: int) -> LimitUse:
    return LimitUse(kind=kind, name=name, used=used, limit=limit, reached=used >= limit)
