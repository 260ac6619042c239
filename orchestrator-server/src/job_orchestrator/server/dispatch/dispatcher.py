"""Dispatcher: claims queued jobs and starts a delivery for each."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping

from job_orchestrator.common.errors import StorageFull
from job_orchestrator.common.logs.context import logging_about
from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.runtime.loops import Loop, TaskOwner
from job_orchestrator.common.status import FINAL_JOB, JobStatus
from job_orchestrator.server.clients.registry import ClientRegistry
from job_orchestrator.server.dispatch.call_back import CallBack
from job_orchestrator.server.dispatch.delivery import Delivery
from job_orchestrator.server.model import Job, JobOptions, Service
from job_orchestrator.server.scheduling.base import Limits
from job_orchestrator.server.scheduling.fitting import Fitting
from job_orchestrator.server.scheduling.offers import MAX_CLAIMS, Offers
from job_orchestrator.server.scheduling.rules import Rules
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.store.queue import Claim
from job_orchestrator.server.tuning import Tuning

logger = logging.getLogger(__name__)

MAX_ARRIVALS = 100
"""Jobs that are compared with those that wait at clients. Later ones wait for the next slot."""


class Dispatcher:
    """Claims jobs by policy and placement, and delivers each in a separate task.

    Invariant: a Processing job has a delivery, or gets one at the next pass. So neither a crash nor
    a failing database leaves one stuck.
    """

    def __init__(
        self,
        store: JobStore,
        registry: ClientRegistry,
        rules: Rules,
        offers: Offers,
        delivery: Delivery,
        services: Mapping[str, Service],
        tuning: Tuning,
        *,
        lost_after_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create the dispatcher. ``clock`` is monotonic."""
        self._store = store
        self._registry = registry
        self._rules = rules
        self._offers = offers
        self._call_back = CallBack(store, registry, rules)
        self._delivery = delivery
        self._services = services
        self._tuning = tuning
        self._lost_after_s = lost_after_s
        self._clock = clock
        self._deliveries = TaskOwner(
            "dispatch", limit=sum(service.max_runs for service in services.values())
        )
        self._delivering: set[int] = set()
        # Jobs that were queued since the last claim, and may overtake others.
        self._arrivals: list[Job] = []
        self._sized = SizedQueues(services)
        self._next_resume = 0.0
        self._quota_log = QuotaLog()
        self.loop = Loop("dispatcher", self.run_pass, interval_s=tuning.dispatch_interval_s)

    def before_creation(self, service: str, options: JobOptions) -> None:
        """Run a pass whose claim is in the transaction that creates a job."""
        if options.wanted:
            self._sized.add(service)
        self.loop.wake()

    def on_job_changed(self, job: Job) -> None:
        """Run a pass when a job was queued or a slot became free."""
        if job.status is JobStatus.QUEUED or job.status in FINAL_JOB:
            self.loop.wake()
        if job.status is JobStatus.QUEUED and job.wanted:
            self._sized.add(job.service)
        if job.is_ready and len(self._arrivals) < MAX_ARRIVALS:
            self._arrivals.append(job)

    async def run_pass(self) -> None:
        """Resume interrupted deliveries, then claim and deliver all jobs that may run now."""
        if self._clock() >= self._next_resume:
            self._next_resume = self._clock() + self._tuning.resume_interval_s
            await self.resume_interrupted()
        while await self._claim():
            pass

    async def resume_interrupted(self) -> None:
        """Start a delivery for each Processing job that has none.

        A job that a previous run of the server was sending goes to the same client with the same
        key, so it is not run twice.
        """
        # Copied before the query: a delivery that ends while the database answers must not be
        # started again.
        delivering = set(self._delivering)
        for job in await self._store.processing():
            if job.id not in delivering:
                self._start_delivery(job, resumed=True)

    async def idle(self) -> None:
        """Wait until every delivery has ended."""
        await self._deliveries.drain(self._lost_after_s)

    async def close(self) -> None:
        """Cancel the deliveries; they are resumed at the next start."""
        await self._call_back.close()
        await self._deliveries.close()

    async def _claim(self) -> bool:
        """Claim jobs and start their deliveries. Returns whether more may be claimed.

        Jobs of a service that is not configured wait until it is configured again.
        """
        offers, replaceable = {}, {}
        arrivals, self._arrivals = self._arrivals, []
        fitting = self._fitting()
        self._offers.observe()
        for service in self._services.values():
            if service.name in self._rules.pauses.services:
                continue
            clients = self._offers.placed(service)
            if any(job.service == service.name for job in arrivals):
                replaceable[service.name] = self._call_back.replaceable(service)
            if clients or replaceable.get(service.name):
                holders = [job.user_id for job in replaceable.get(service.name, ())]
                offers[service.name] = self._offers.offer(service, clients, holders, fitting)
        if not offers:
            return False
        more = False
        claims = await self._store.claim(offers)
        self._sized.keep([name for name, claim in claims.items() if claim.arranged], offers)
        if fitting is not None:
            # A service without an offer keeps its own: its clients are full.
            self._offers.reservations = {
                name: reservation
                for name, reservation in fitting.reservations.items()
                if name not in self._rules.pauses.services
                and (name not in offers or self._still_waits(claims.get(name), name))
            }
        for name, claim in claims.items():
            if claim.arranged and offers[name].arrange is None:
                self._sized.add(name)
                more = True
            if claim.jobs:
                reach(Point.SERVER_CLAIMED)
            limits = self._rules.limits(self._services[name])
            self._quota_log.report(self._services[name], limits, claim)
            for job in claim.jobs:
                self._start_delivery(job, resumed=False)
            more = more or len(claim.jobs) >= MAX_CLAIMS
            # A job that is called back for one that does not fit would only be sent again.
            if (not_started := replaceable.get(name)) and not claim.arranged:
                self._call_back.overtaken(self._services[name], not_started, claim, arrivals)
        for service in self._services.values():
            self._call_back.misplaced(
                service, {each.client for each in self._offers.reservations.values()}
            )
        return more

    def _still_waits(self, claim: Claim | None, name: str) -> bool:
        """Return whether a service may start queued jobs. A claim lacks those without any."""
        return claim is not None and claim.active < self._services[name].max_runs

    def _fitting(self) -> Fitting | None:
        """Return the state of the clients if jobs that ask for resources may be queued."""
        if not self._sized.begin():
            self._offers.reservations = {}
            return None
        return self._offers.fitting()

    def _start_delivery(self, job: Job, *, resumed: bool) -> None:
        self._delivering.add(job.id)
        self._deliveries.spawn(self._deliver(job, resumed=resumed), f"job {job.id}")

    async def _deliver(self, job: Job, *, resumed: bool) -> None:
        try:
            with logging_about(**job.log_fields()):
                await self._delivery.deliver(job, resumed=resumed)
        except StorageFull as error:
            # The database can't grow. The job is still Processing, so its delivery is resumed.
            logger.warning("Job %d: %s", job.id, error)
        finally:
            self._delivering.discard(job.id)


class SizedQueues:
    """Services in whose queues jobs may ask for resources. Claims find out whether any does.

    At the start it may be so in all: what a previous run of the server has queued is not known.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._services = set(services)
        self._new: set[str] = set()

    def begin(self) -> bool:
        """Return whether a queued job may ask for resources, before a claim that finds out."""
        self._new.clear()
        return bool(self._services)

    def add(self, service: str) -> None:
        """Record that such a job was queued."""
        self._services.add(service)
        self._new.add(service)

    def keep(self, found: Collection[str], asked: Collection[str]) -> None:
        """Record for which of the services that were ``asked`` a claim has ``found`` such a job."""
        self._services -= set(asked) - set(found) - self._new


class QuotaLog:
    """Logs which users got a slot, and once for each waiting job that a quota holds it back."""

    def __init__(self) -> None:
        self._held: dict[str, dict[int, int]] = {}

    def report(self, service: Service, limits: Limits, claim: Claim) -> None:
        """Log the decisions of a claim."""
        for job in claim.jobs:
            logger.info(
                "User %d slot available, dispatching job %d to service '%s'",
                job.user_id,
                job.id,
                service.name,
            )
        started = Counter(job.user_id for job in claim.jobs)
        claimed = {job.id for job in claim.jobs}
        held: dict[int, int] = {}
        for user in claim.waiting:
            running = user.active + started[user.user_id]
            most = limits.ceiling(user.user_id)
            if running < most or user.head in claimed:
                continue
            held[user.user_id] = user.head
            if self._held.get(service.name, {}).get(user.user_id) != user.head:
                logger.info(
                    "User %d has %d/%d jobs running for service '%s', job %d remains queued",
                    user.user_id,
                    running,
                    most,
                    service.name,
                    user.head,
                )
        if claim.waiting:
            self._held[service.name] = held
