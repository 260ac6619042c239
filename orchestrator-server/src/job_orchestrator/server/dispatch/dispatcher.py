"""Claims queued jobs by quota and fairness, and hands each to its client in a task of its own."""

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

from job_orchestrator.common.errors import DomainError
from job_orchestrator.common.logs.context import logging_about
from job_orchestrator.common.messages import Payload
from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.runtime.loops import TaskOwner
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.status import JobStatus, TransitionRefused
from job_orchestrator.server.clients.registry import Client, ClientPool
from job_orchestrator.server.dispatch.about import about_attempt
from job_orchestrator.server.dispatch.quota_log import QuotaLog
from job_orchestrator.server.errors import (
    AnswerLost,
    ClientBusy,
    ClientError,
    ClientFailed,
    ClientRefused,
    ClientUnreachable,
    PayloadLost,
)
from job_orchestrator.server.files.base import JobFiles
from job_orchestrator.server.model import Job, Service
from job_orchestrator.server.scheduling.fair_share import Limits, WaitingUser, choose
from job_orchestrator.server.store.base import Offer, Waiting
from job_orchestrator.server.store.sqlite.jobs import JobStore

logger = logging.getLogger(__name__)

RETRY_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Pauses before a submit whose answer was lost is repeated with the same key."""


MAX_CLAIMS = 50
"""Of one service at once, so that a pass is short however many slots are free."""

TAKE_UP_S = 0.5
"""Between two looks for dispatches that broke off, which are few and far between."""


class Sender:
    """The sender's pass and its dispatches.

    ``submitted`` is called with each job that a client has accepted, and its payload.

    Invariant: a Processing job has a dispatch, or gets one at the next pass; so neither a crash nor
    a failing database leaves one stuck.
    """

    def __init__(
        self,
        store: JobStore,
        files: JobFiles,
        pool: ClientPool,
        services: Mapping[str, Service],
        *,
        lost_after_s: float,
        submitted: Callable[[Job, Payload], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._files = files
        self._pool = pool
        self._services = services
        self._lost_after_s = lost_after_s
        self._submitted = submitted
        self._dispatches = TaskOwner(
            "dispatch", limit=sum(service.max_runs for service in services.values())
        )
        self._dispatching: set[int] = set()
        self._quota_log = QuotaLog()
        self._clock = clock
        self._next_take_up = 0.0

    async def run_pass(self) -> None:
        """Take up dispatches that broke off, claim what may run now, and begin to send it.

        A dispatch of an earlier life goes to the same client with the same key: no second run.
        """
        if self._clock() >= self._next_take_up:
            self._next_take_up = self._clock() + TAKE_UP_S
            await self._take_up()
        while await self._claim():
            pass

    async def _claim(self) -> bool:
        """Claim and begin to send; whether there may be more to claim.

        Jobs of a service that isn't configured any more wait until it is again.
        """
        offers = {}
        for service in self._services.values():
            if clients := self._pool.plan(service, MAX_CLAIMS):
                decide = partial(_decide, service, len(clients))
                offers[service.name] = Offer(service.max_runs, clients, decide)
        more = False
        for name, claim in (await self._store.claim(offers)).items():
            if claim.jobs:
                reach(Point.SERVER_CLAIMED)
            self._quota_log.report(self._services[name], claim)
            for job in claim.jobs:
                self._begin(job, again=False)
            more = more or len(claim.jobs) == MAX_CLAIMS
        return more

    async def close(self) -> None:
        """Cancel the dispatches; the next life takes them up."""
        await self._dispatches.close()

    async def idle(self) -> None:
        """Wait until every dispatch has ended."""
        await self._dispatches.drain(self._lost_after_s)

    async def _take_up(self) -> None:
        # Asked before the database is: a dispatch that ends while it answers must not begin again.
        under_way = set(self._dispatching)
        for job in await self._store.processing():
            if job.id not in under_way:
                self._begin(job, again=True)

    def _begin(self, job: Job, *, again: bool) -> None:
        self._dispatching.add(job.id)
        self._dispatches.spawn(self._dispatch(job, again=again), f"job {job.id}")

    async def _dispatch(self, job: Job, *, again: bool) -> None:
        try:
            with logging_about(**about_attempt(job)):
                await self._bring(job, again=again)
        finally:
            self._dispatching.discard(job.id)

    async def _bring(self, job: Job, *, again: bool) -> None:
        """Bring one claimed job to its client, or back to the queue, or to its end.

        ``again``: an earlier dispatch broke off, and may have brought it there.
        """
        client = self._pool.get(job.client)
        if job.kill_requested and not again:
            await self._store.transition(job, JobStatus.KILLED, "Terminated on request")
            return
        if client is None:
            why = f"{job.client} is no longer configured"
            await self._give_up(job, why, 0.0, counts=False, may_still_run=again)
            return
        self._pool.sending(client)
        try:
            if job.kill_requested:
                await self._end_there(job, client)
                self._pool.works(client)
                return
            payload = await self._submit(job, client, may_have_it=again)
        except ClientRefused as error:
            self._pool.works(client)
            await self._store.transition(job, JobStatus.FAILED, str(error))
        except ClientBusy as error:
            pause_s = self._pool.failed(client, str(error))
            await self._give_up(job, str(error), pause_s, counts=False, may_still_run=False)
        except ClientUnreachable as error:
            self._pool.failed(client, str(error))
            await self._give_up(job, str(error), 0.0, counts=True, may_still_run=False)
        except ClientError as error:
            self._pool.failed(client, str(error))
            await self._give_up(job, str(error), 0.0, counts=True, may_still_run=True)
        except OSError as error:
            self._pool.works(client)
            await self._store.transition(job, JobStatus.FAILED, f"Its files can't be read: {error}")
        except Exception as error:
            # A mistake of ours. The job must not be tried for ever, nor its client wait for it.
            logger.exception("Job %d could not be sent", job.id)
            self._pool.failed(client, f"{client.api}: {error}")
            why = f"It could not be sent: {error}"
            await self._give_up(job, why, 0.0, counts=True, may_still_run=True)
        else:
            self._pool.works(client)
            await self._hand_over(job, client, payload)

    async def _submit(self, job: Job, client: Client, *, may_have_it: bool) -> Payload:
        """Send a job; again and again as long as the client may have it and does not tell."""
        files = await in_thread(self._files.inputs, job)

        async def send() -> Payload:
            reach(Point.SERVER_BEFORE_SEND)
            payload = await client.api.submit(files, job.key, time_limit_s=self._time_limit_s(job))
            reach(Point.SERVER_SENT)
            return payload

        return await self._insist(send, client, may_have_it=may_have_it)

    async def _end_there(self, job: Job, client: Client) -> None:
        """End a job that is to be terminated, and that an earlier dispatch may have brought.

        Only then it is Killed. An older client, which can't be asked by key, is sent the job, so as
        to learn which payload that is, and asked to end that.
        """
        try:
            payload = await self._insist(
                lambda: client.api.kill_key(job.key), client, may_have_it=True
            )
        except PayloadLost:
            payload = await self._submit(job, client, may_have_it=True)
            await client.api.kill(payload.id)
        client.discards.add(payload.id)
        await self._store.transition(job, JobStatus.KILLED, "Terminated on request")

    async def _insist(
        self, ask: Callable[[], Awaitable[Payload]], client: Client, *, may_have_it: bool
    ) -> Payload:
        """Ask a client about a job; again and again as long as it may have it and does not tell.

        Raises ``AnswerLost`` when that has gone on for ``LOST_AFTER``. What a client answers, or
        that it can't be reached, while it can't have the job, is raised at once.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._lost_after_s
        for tries in itertools.count():
            pause_s = RETRY_S[min(tries, len(RETRY_S) - 1)]
            try:
                return await ask()
            except (AnswerLost, ClientUnreachable, ClientBusy, ClientFailed) as error:
                may_have_it = may_have_it or isinstance(error, AnswerLost)
                if not may_have_it:
                    raise
                self._pool.failed(client, str(error))
                if loop.time() + pause_s >= until:
                    raise AnswerLost(str(error)) from error
            await asyncio.sleep(pause_s)
        raise AssertionError("unreachable")

    def _time_limit_s(self, job: Job) -> float | None:
        """The job's own time limit or that of its service, whichever is less."""
        service = self._services.get(job.service)
        limits = (job.time_limit_s, service.time_limit_s if service else None)
        return min((limit for limit in limits if limit is not None), default=None)

    async def _hand_over(self, job: Job, client: Client, payload: Payload) -> None:
        try:
            submitted = await self._store.transition(
                job, JobStatus.SUBMITTED, "A client has it", dest_id=payload.id
            )
        except TransitionRefused as error:
            # Nobody else moves a Processing job. Should that ever happen, leave no stray payload;
            # but one that the job knows is not stray.
            now = await self._store.get(job.id)
            logger.error("%s; its payload %d is at %s", error, payload.id, client.api)
            if (now.client, now.dest_id) != (client.url, payload.id):
                await client.api.kill(payload.id)
            return
        reach(Point.SERVER_SUBMITTED)
        self._submitted(submitted, payload)

    async def _give_up(
        self, job: Job, why: str, delay_s: float, *, counts: bool, may_still_run: bool
    ) -> None:
        """Back to the queue. ``may_still_run``: the client may have it all the same, and is to end it."""
        given_up, client = job.key, self._pool.get(job.client)
        service = self._services.get(job.service)
        try:
            job = await self._store.requeue(
                job,
                why,
                delay_s=delay_s,
                max_attempts=service.max_attempts if service else 1,
                counts=counts,
                may_still_run=may_still_run,
            )
        except DomainError as error:
            logger.warning("Job %d: %s", job.id, error)
        else:
            if may_still_run and client is not None:
                client.strays.add(given_up)
            logger.warning(
                "Job %d is %s after attempt %d: %s", job.id, job.status, job.attempt, why
            )


def _decide(service: Service, slots: int, active: int, waiting: Sequence[Waiting]) -> Sequence[int]:
    users = [WaitingUser(user.user_id, user.queued, user.active, user.served) for user in waiting]
    return choose(Limits(service.runs_per_user, service.max_runs), active, slots, users)
