"""Look-ahead: how many jobs wait at a client for a slot, and which of them are called back.

A job is bound to a client only when a slot is free. Short jobs are the exception: a slot that ends
many of them a second would be idle for a round trip after each.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from job_orchestrator.server.model import Job
from job_orchestrator.server.scheduling.base import NO_USERS, Limits, SchedulingPolicy
from job_orchestrator.server.store.queue import QueuedJob, WaitingUser

LOOK_AHEAD_S = 1.0
"""Expected run time of all jobs together, in seconds, that wait at a client for a slot."""

REPORT_DELAY_S = 0.1
"""Time in seconds after which the end of a job is known here, even on a busy machine."""

MAX_JOBS_PER_SLOT = 2
"""Waiting jobs for each slot of a client: more would not keep the slots busier."""

RunTime = Callable[[str], float | None]
"""Maps a service to the expected run time of its jobs in seconds; None if it is not known."""


def look_ahead(service: str, run_time: RunTime, slots: int, jobs: Iterable[Job], now: float) -> int:
    """Return how many jobs of ``service`` may wait at a client that runs ``jobs``.

    None wait unless a slot is expected to become free soon: slots with long jobs don't count.
    """
    run_s = run_time(service)
    if run_s is None or run_s > LOOK_AHEAD_S:
        return 0
    fast_slots = slots - sum(_is_long(job, run_time, now) for job in jobs)
    if fast_slots <= 0:
        return 0
    return min(int(LOOK_AHEAD_S / max(run_s, 0.001)), MAX_JOBS_PER_SLOT * fast_slots)


def _is_long(job: Job, run_time: RunTime, now: float) -> bool:
    run_s = run_time(job.service)
    if run_s is None or run_s > LOOK_AHEAD_S:
        return True
    # A job that has run for much longer than expected is probably a long one.
    unexpected_s = min(LOOK_AHEAD_S, 2 * run_s + REPORT_DELAY_S)
    return job.started_at is not None and now - job.started_at > unexpected_s


def overtaken(
    policy: SchedulingPolicy,
    limits: Limits,
    active: Sequence[Job],
    not_started: Sequence[Job],
    waiting: Sequence[WaitingUser],
    held_usage_s: Mapping[int, float],
    everywhere: Mapping[int, int] = NO_USERS,
) -> list[Job]:
    """Return the jobs of ``not_started`` that should give their place to ``waiting`` users' jobs.

    ``active`` are the active jobs of one service, ``not_started`` those of them that wait at
    clients for a slot, in the order of their claims; ``held_usage_s`` is the usage of their users.
    ``everywhere`` has the active jobs of each user in all services.
    For each of these the policy decides who gets its place: its user, who wins ties, or a waiting
    one. The user whom the policy would serve last comes first, and of its jobs the latest. So two
    jobs never call each other back forever.
    """
    counts = Counter(job.user_id for job in active)
    in_all = Counter(everywhere)
    queued = {user.user_id: user for user in waiting}
    held: dict[int, list[Job]] = {}
    for job in not_started:
        held.setdefault(job.user_id, []).append(job)
    found: list[Job] = []
    while held:
        holders = {
            user_id: _holder(jobs[-1], counts[user_id] - 1, held_usage_s.get(user_id, 0.0))
            for user_id, jobs in held.items()
        }
        order = policy.choose(
            replace(limits, per_service=len(held)), 0, len(held), list(holders.values())
        )
        user_id = order[-1] if order else next(iter(held))
        holder = holders[user_id]
        counts[user_id] -= 1
        in_all[user_id] -= 1
        rivals = [
            replace(user, active=counts[user.user_id])
            for user in queued.values()
            if user.user_id != user_id
        ]
        (chosen,) = policy.choose(limits, counts.total(), 1, [*rivals, holder], in_all) or (
            user_id,
        )
        counts[chosen] += 1
        in_all[chosen] += 1
        if chosen == user_id:
            del held[user_id]
            continue
        found.append(held[user_id].pop())
        rival = queued[chosen]
        queued[chosen] = replace(rival, queued=rival.queued - 1, next=rival.next[1:])
        if not held[user_id]:
            del held[user_id]
    return found


def _holder(job: Job, active: int, usage_s: float) -> WaitingUser:
    own = QueuedJob(job.id, job.priority, job.created_at)
    return WaitingUser(job.user_id, 1, active, served=-1, head=0, usage_s=usage_s, next=(own,))


def outranked(queued: Iterable[Job], not_started: Sequence[Job]) -> list[Job]:
    """Return jobs of ``not_started`` whose users have queued a job of higher priority.

    At most one is returned for each queued job: the one with the lowest priority, the latest first.
    """
    left = sorted(not_started, key=lambda job: (job.priority, -job.changed_at, -job.id))
    found = []
    for arrival in queued:
        for job in left:
            if job.user_id == arrival.user_id and job.priority < arrival.priority:
                left.remove(job)
                found.append(job)
                break
    return found
