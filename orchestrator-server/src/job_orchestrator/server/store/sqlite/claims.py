"""Claims: counting, decision and claim are one transaction."""

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from job_orchestrator.common.messages.resources import Resources
from job_orchestrator.server.store.installation import Installation
from job_orchestrator.server.store.queue import (
    MAX_BACKFILL,
    MAX_WAITING,
    MAX_WAITING_JOBS,
    Claim,
    Offer,
    QueuedJob,
    RateOf,
    Rehearsal,
    Start,
    WaitingUser,
)
from job_orchestrator.server.store.sharing import divide
from job_orchestrator.server.store.sqlite.queue.rates import take_token, tokens_of
from job_orchestrator.server.store.sqlite.queue.usage import mark_served, usage_of
from job_orchestrator.server.store.sqlite.rows import COLUMNS, IS_ACTIVE, IS_READY, job_of
from job_orchestrator.server.store.usage import Usage

# The indexes are named, because SQLite would search the smallest service in an index of all jobs,
# and pass every job that has ever ended. The index of active jobs is small enough to stay in
# SQLite's cache.
_QUEUED = "jobs INDEXED BY jobs_queued"
_ACTIVE = "jobs INDEXED BY jobs_active"

QUEUED_SERVICES = f"""
WITH RECURSIVE names (service) AS (
    SELECT min(service) FROM {_QUEUED} WHERE {IS_READY}
    UNION ALL
    SELECT (SELECT min(service) FROM {_QUEUED} WHERE {IS_READY} AND service > names.service)
    FROM names WHERE names.service IS NOT NULL
)
SELECT service FROM names WHERE service IS NOT NULL
"""  # noqa: S608

ACTIVE_COUNT = f"SELECT count(*) FROM {_ACTIVE} WHERE service = :service AND {IS_ACTIVE}"  # noqa: S608

# Quotas keep the active jobs few. Users are counted here: SQLite would sort them first.
ACTIVE_USERS = f"SELECT user_id FROM {_ACTIVE} WHERE {IS_ACTIVE}"  # noqa: S608

ANY_QUEUED = f"SELECT min(service) IS NOT NULL FROM {_QUEUED} WHERE {IS_READY}"  # noqa: S608


def _waiting_users(condition: str) -> str:
    """Select the users with queued jobs, and count those of their jobs that meet a condition.

    A skip scan: one index look-up for each user with queued jobs, however many jobs a user has.
    """
    return f"""
WITH RECURSIVE users (user_id) AS (
    SELECT min(user_id) FROM {_QUEUED} WHERE service = :service AND {IS_READY}
    UNION ALL
    SELECT (
        SELECT min(user_id) FROM {_QUEUED}
        WHERE service = :service AND {IS_READY} AND user_id > users.user_id
    ) FROM users WHERE users.user_id IS NOT NULL
)
SELECT
    users.user_id,
    (SELECT count(*) FROM (
        SELECT 1 FROM {_QUEUED} WHERE service = :service AND user_id = users.user_id
        AND {IS_READY} {condition} LIMIT :free)),
    (SELECT count(*) FROM {_ACTIVE}
        WHERE service = :service AND user_id = users.user_id AND {IS_ACTIVE}),
    coalesce(served.turn, 0),
    (SELECT id FROM {_QUEUED}
        WHERE service = :service AND user_id = users.user_id AND {IS_READY}
        ORDER BY priority DESC, id LIMIT 1),
    coalesce(served.usage_s, 0), coalesce(served.slots, 0), coalesce(served.usage_at, 0)
FROM users LEFT JOIN served ON served.service = :service AND served.user_id = users.user_id
WHERE users.user_id IS NOT NULL
"""  # noqa: S608


WAITING_USERS = _waiting_users("AND not_before <= :now")

# Without the time, which is not in the index, no row is read.
ALL_WAITING_USERS = f"{_waiting_users('')} LIMIT {MAX_WAITING}"

_CLAIM = """
UPDATE jobs SET status = 'Processing', attempt = attempt + 1, nonce = :nonce,
    client_url = :client_url, dest_id = NULL, message = 'Being sent to a machine',
    changed_at = :now
"""

CLAIM_ONE = f"""{_CLAIM} WHERE id = (
    SELECT id FROM {_QUEUED} WHERE service = :service AND user_id = :user_id AND {IS_READY}
    AND not_before <= :now ORDER BY priority DESC, id LIMIT 1)
RETURNING {COLUMNS}
"""  # noqa: S608

CLAIM_THIS = f"{_CLAIM} WHERE id = :job AND {IS_READY} RETURNING {COLUMNS}"

ANY_SIZED = f"""
SELECT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_sized WHERE service = ? AND {IS_READY}
    AND (cpus > 0 OR memory_bytes > 0 OR gpus > 0))
"""  # noqa: S608

NEXT_JOBS = f"""
SELECT id, priority, created_at, time_limit_s, cpus, memory_bytes, gpus FROM {_QUEUED}
WHERE service = :service AND user_id = :user_id AND {IS_READY} AND not_before <= :now
ORDER BY priority DESC, id LIMIT :limit
"""  # noqa: S608


@dataclass(frozen=True)
class Claimer:
    """Claims in the database of an installation. ``half_life_s`` is that of usage."""

    installation: Installation
    half_life_s: float

    def claim(
        self, connection: sqlite3.Connection, offers: Mapping[str, Offer], now: float
    ) -> dict[str, Claim]:
        """Claim queued jobs of the offered services, within the open transaction.

        ``Offer.decide`` runs in the connection's thread and must not use the event loop.
        """
        queued = list(offers)
        if len(offers) > 1:
            queued = [name for (name,) in connection.execute(QUEUED_SERVICES).fetchall()]
        everywhere: Counter[int] = Counter()
        if any(offer.everywhere for offer in offers.values()):
            everywhere.update(user_id for (user_id,) in connection.execute(ACTIVE_USERS))
        asked = {name: offers[name] for name in queued if name in offers}
        parts = divide(asked)
        taken: Counter[str] = Counter()
        claims = {}
        for name, offer in parts.items():
            claims[name] = self._claim(connection, name, offer, everywhere, now)
            taken.update(job.client for job in claims[name].jobs if job.client is not None)
        # What a service leaves of its part, those may have that got less than they could use.
        for name, offer in asked.items():
            part = parts[name]
            if part is not offer and len(claims[name].jobs) == len(part.clients):
                rest = offer.without(taken)
                if rest.clients:
                    more = self._claim(connection, name, rest, everywhere, now)
                    claims[name] = claims[name].extended(more)
                    taken.update(job.client for job in more.jobs if job.client is not None)
        return claims

    def _claim(
        self,
        connection: sqlite3.Connection,
        service: str,
        offer: Offer,
        everywhere: Counter[int],
        now: float,
    ) -> Claim:
        """Claim jobs of one service.

        The first query is enough in the usual case of a service without a free slot, which a claim
        therefore passes at almost no cost.
        """
        ((active,),) = connection.execute(ACTIVE_COUNT, {"service": service})
        # A shortcut for a full service; otherwise the policy decides.
        free = min(offer.max_active - active, len(offer.clients))
        counted = max(free, len(offer.holders))
        if counted <= 0:
            # Whether queued jobs ask for resources was not looked up.
            return Claim((), active, (), arranged=offer.arrange is not None)
        values = {"service": service, "now": now, "free": counted}
        rows = connection.execute(WAITING_USERS, values).fetchall()
        usages = {row[0]: Usage(*row[5:]) for row in rows}
        waiting = [waiting_user(row, now, self.half_life_s) for row in rows]
        sized = _any_sized(connection, service)
        if sized and offer.arrange is None:
            # One has become ready since the offer was made.
            return Claim((), active, (), arranged=True)
        arranged = offer.arrange is not None and (sized or offer.reserved)
        if offer.in_order or arranged:
            more = MAX_BACKFILL if sized else 0
            waiting = [_with_next(connection, service, user, now, more) for user in waiting]
        if offer.rate_of is not None:
            waiting = [_with_tokens(connection, offer.rate_of, user, now) for user in waiting]
        held = {
            user_id: usage_of(connection, service, user_id).seconds_at(now, self.half_life_s)
            for user_id in set(offer.holders)
        }
        if free <= 0:
            return Claim((), active, waiting, held, everywhere, sized)
        jobs = []
        before = dict(everywhere)
        for start in _decide(offer, active, waiting, before, arranged=arranged):
            user_id = start.user_id
            values = {
                "service": service,
                "user_id": user_id,
                "client_url": start.client,
                "nonce": self.installation.new_nonce(),
                "now": now,
                "job": start.job,
            }
            statement = CLAIM_ONE if start.job is None else CLAIM_THIS
            for row in connection.execute(statement, values).fetchall():
                job = job_of(row)
                jobs.append(job)
                rate = offer.rate_of(user_id) if offer.rate_of is not None else None
                if rate is not None and job.attempt == 1:
                    take_token(connection, user_id, rate, now)
            everywhere[user_id] += 1
            usage = usages[user_id]
            usages[user_id] = usage.holding(usage.slots + 1, now, self.half_life_s)
            mark_served(connection, service, user_id, usages[user_id])
        return Claim(jobs, active, waiting, held, before, sized)


def rehearse(
    connection: sqlite3.Connection,
    offers: Mapping[str, Offer],
    service: str,
    now: float,
    half_life_s: float,
) -> Rehearsal:
    """Decide on one service as ``Claimer.claim`` does, within a transaction that only reads."""
    queued = [name for (name,) in connection.execute(QUEUED_SERVICES).fetchall()]
    everywhere = Counter(user_id for (user_id,) in connection.execute(ACTIVE_USERS))
    part = divide({name: offers[name] for name in queued if name in offers}).get(service)
    offer = offers[service] if part is None else part
    ((active,),) = connection.execute(ACTIVE_COUNT, {"service": service})
    values = {"service": service, "now": now, "free": MAX_WAITING_JOBS}
    rows = connection.execute(WAITING_USERS, values).fetchall()
    waiting = [
        _with_next(connection, service, waiting_user(row, now, half_life_s), now, 0) for row in rows
    ]
    if offer.rate_of is not None:
        waiting = [_with_tokens(connection, offer.rate_of, user, now) for user in waiting]
    arranged = _any_sized(connection, service) or offer.reserved
    starts: Sequence[Start] = ()
    if min(offer.max_active - active, len(offer.clients)) > 0:
        starts = _decide(offer, active, waiting, everywhere, arranged=arranged)
    return Rehearsal(starts, active, waiting, everywhere)


def _decide(
    offer: Offer,
    active: int,
    waiting: Sequence[WaitingUser],
    everywhere: Mapping[int, int],
    *,
    arranged: bool,
) -> Sequence[Start]:
    """Return the jobs to claim, with their clients."""
    if arranged and offer.arrange is not None:
        return offer.arrange(active, offer.clients, waiting, everywhere)
    chosen = offer.decide(active, len(offer.clients), waiting, everywhere)
    return [Start(*each) for each in zip(chosen, offer.clients, strict=False)]


def any_queued(connection: sqlite3.Connection) -> bool:
    """Return whether a job of any service is queued."""
    ((found,),) = connection.execute(ANY_QUEUED)
    return bool(found)


def waiting_user(row: Sequence[Any], now: float, half_life_s: float) -> WaitingUser:
    """Return the waiting user of a row of ``WAITING_USERS``."""
    user_id, queued, active, served, head, *usage = row
    used_s = Usage(*usage).seconds_at(now, half_life_s)
    return WaitingUser(user_id, queued, active, served, head, used_s)


def _with_next(
    connection: sqlite3.Connection, service: str, user: WaitingUser, now: float, more: int
) -> WaitingUser:
    limit = user.queued + more if user.queued else 0
    values = {"service": service, "user_id": user.user_id, "now": now, "limit": limit}
    rows = connection.execute(NEXT_JOBS, values).fetchall()
    return replace(user, next=tuple(map(_queued_job, rows)))


def _queued_job(row: Sequence[Any]) -> QueuedJob:
    job_id, priority, created_at, time_limit_s, *wanted = row
    return QueuedJob(job_id, priority, created_at, time_limit_s, Resources(*wanted))


def _any_sized(connection: sqlite3.Connection, service: str) -> bool:
    ((found,),) = connection.execute(ANY_SIZED, (service,))
    return bool(found)


def _with_tokens(
    connection: sqlite3.Connection, rate_of: RateOf, user: WaitingUser, now: float
) -> WaitingUser:
    rate = rate_of(user.user_id)
    if rate is None:
        return user
    return replace(user, tokens=tokens_of(connection, user.user_id, rate, now))
