"""Jobs that ask for resources: no client is overfilled, the best one is taken, none is starved."""

import itertools
import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from job_orchestrator.common.messages.resources import NOTHING, Resources
from job_orchestrator.server.model import Service
from job_orchestrator.server.scheduling.arrival import FirstCome
from job_orchestrator.server.scheduling.base import Limits, SchedulingPolicy
from job_orchestrator.server.scheduling.fair_share import FairShare
from job_orchestrator.server.scheduling.fitting import (
    Fitting,
    Machine,
    Occupant,
    Reservation,
    arrange,
    largest,
)
from job_orchestrator.server.scheduling.placement import Candidate
from job_orchestrator.server.store.queue import QueuedJob, Start, WaitingUser

SERVICE = "s"
TERMS = Service(SERVICE, (), 1000, 1000, 3, None)
NO_LIMITS = Limits(per_user=1000, per_service=1000)


@dataclass
class Cluster:
    """Clients with running jobs, and the queue of one service, on a virtual clock."""

    totals: dict[str, tuple[int, Resources]]
    policy: SchedulingPolicy = field(default_factory=FairShare)
    limits: Limits = NO_LIMITS
    now: float = 0.0
    running: dict[str, dict[int, tuple[Occupant, float]]] = field(default_factory=dict)
    queues: dict[int, list[QueuedJob]] = field(default_factory=dict)
    ends_s: dict[int, float] = field(default_factory=dict)
    usage_s: dict[int, float] = field(default_factory=dict)
    reservations: dict[str, Reservation] = field(default_factory=dict)
    started: dict[int, float] = field(default_factory=dict)
    owners: dict[int, int] = field(default_factory=dict)
    ids: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def submit(
        self, user: int, wanted: Resources, run_s: float, limit_s: float | None = None
    ) -> int:
        """Queue a job that runs for ``run_s``."""
        job = QueuedJob(next(self.ids), 0, self.now, limit_s, wanted)
        self.queues.setdefault(user, []).append(job)
        self.ends_s[job.id], self.owners[job.id] = run_s, user
        return job.id

    def fitting(self) -> Fitting:
        """Return what a pass begins with."""
        machines = []
        for name, (slots, total) in self.totals.items():
            jobs = {n: occupant for n, (occupant, _) in self.running.get(name, {}).items()}
            used = sum((each.wanted for each in jobs.values()), start=Resources())
            machines.append(
                Machine(Candidate(name, len(jobs), slots), total, total.less(used), jobs)
            )
        return Fitting(machines, {SERVICE: list(self.totals)}, self.reservations, self.now)

    def schedule(self) -> list[Start]:
        """Start what the product starts."""
        fitting = self.fitting()
        waiting = [
            WaitingUser(
                user,
                len(queue),
                sum(self.owners[n] == user for jobs in self.running.values() for n in jobs),
                0,
                queue[0].id,
                self.usage_s.get(user, 0.0),
                tuple(queue[:30]),
            )
            for user, queue in self.queues.items()
            if queue
        ]
        active = sum(len(jobs) for jobs in self.running.values())
        offered = [
            name
            for name, (slots, _) in self.totals.items()
            for _ in range(slots - len(self.running.get(name, {})))
        ]
        starts = []
        if offered:
            starts = arrange(fitting, TERMS, self.policy, self.limits, active, offered, waiting, {})
        self.reservations = fitting.reservations
        for start in starts:
            assert start.job is not None
            queue = self.queues[start.user_id]
            job = next(job for job in queue if job.id == start.job)
            queue.remove(job)
            until = math.inf if job.time_limit_s is None else self.now + job.time_limit_s
            end = self.now + self.ends_s[job.id]
            jobs = self.running.setdefault(start.client, {})
            jobs[job.id] = Occupant(job.wanted, until), end
            self.started[job.id] = self.now
        for name, (slots, total) in self.totals.items():
            held = [occupant.wanted for occupant, _ in self.running.get(name, {}).values()]
            assert len(held) <= slots
            assert total.hold(sum(held, start=Resources()))
        return starts

    def advance(self) -> None:
        """End the job that ends next."""
        ends = [
            (end, name, number)
            for name, jobs in self.running.items()
            for number, (_, end) in jobs.items()
        ]
        self.now, name, number = min(ends)
        del self.running[name][number]
        owner = self.owners[number]
        used = self.now - self.started[number]
        self.usage_s[owner] = self.usage_s.get(owner, 0.0) + used


sizes = st.builds(
    Resources, st.sampled_from([0.0, 1.0, 2.0, 3.0]), st.sampled_from([0, 2, 5]), st.integers(0, 2)
)
totals = st.builds(
    Resources, st.sampled_from([2.0, 4.0, 8.0]), st.sampled_from([4, 10]), st.integers(0, 3)
)
clusters = st.dictionaries(
    st.sampled_from(["a", "b", "c"]), st.tuples(st.integers(1, 6), totals), min_size=1
)
streams = st.lists(
    st.tuples(st.integers(1, 3), sizes, st.integers(1, 9), st.booleans()), min_size=1, max_size=25
)


@pytest.mark.parametrize("policy", [FairShare(), FirstCome()], ids=["fair", "fifo"])
@settings(deadline=None)
@given(clusters, streams)
def test_no_client_is_overfilled_and_no_job_waits_that_fits_on_an_unreserved_one(
    policy: SchedulingPolicy,
    totals: dict[str, tuple[int, Resources]],
    stream: list[tuple[int, Resources, int, bool]],
) -> None:
    cluster = Cluster(totals, policy)
    for user, wanted, run_s, limited in stream:
        cluster.submit(user, wanted, run_s, run_s if limited else None)
        cluster.schedule()  # checks what each client has
        fitting = cluster.fitting()
        kept = {each.client for each in cluster.reservations.values()}
        for queue in cluster.queues.values():
            for job in queue:
                assert not any(
                    machine.slots >= 1 and machine.free.hold(job.wanted)
                    for name, machine in fitting._machines.items()
                    if name not in kept
                )
    while any(cluster.running.values()):
        cluster.advance()
        cluster.schedule()
    # What is left could run on none of the clients.
    for queue in cluster.queues.values():
        for job in queue:
            assert not any(total.hold(job.wanted) for _, total in totals.values())


@settings(deadline=None)
@given(
    clusters,
    st.lists(st.tuples(sizes, st.integers(1, 9), st.booleans()), min_size=1, max_size=8),
    st.data(),
)
def test_wide_job_starts_within_its_reservation_however_many_narrow_jobs_arrive(
    totals: dict[str, tuple[int, Resources]],
    narrow: list[tuple[Resources, int, bool]],
    data: st.DataObject,
) -> None:
    cluster = Cluster(totals)
    _, wide = data.draw(st.sampled_from(sorted(totals.values(), key=repr)))
    arrivals = itertools.cycle(narrow)

    def fill() -> None:
        for user in (1, 2):
            while len(cluster.queues.get(user, [])) < 12:
                wanted, run_s, limited = next(arrivals)
                cluster.submit(user, wanted, run_s, run_s if limited else None)

    fill()
    cluster.schedule()
    job = cluster.submit(3, wide, 1)
    deadline = math.inf
    for _ in range(400):
        fill()
        cluster.schedule()
        if job in cluster.started:
            break
        reservation = cluster.reservations.get(SERVICE)
        if reservation is not None and reservation.job == job and deadline == math.inf:
            jobs = cluster.running.get(reservation.client, {})
            ends = [end for number, (_, end) in jobs.items() if number in reservation.earlier]
            deadline = max([*ends, cluster.now])
            if reservation.until < math.inf:
                deadline = max(deadline, reservation.until)
        cluster.advance()
    assert job in cluster.started, "the wide job was starved"
    assert cluster.started[job] <= deadline


def test_job_goes_to_the_client_on_which_least_is_left_unused() -> None:
    cluster = Cluster(
        {
            "large": (4, Resources(32.0, 64)),
            "fitting": (4, Resources(4.0, 8)),
            "gpu": (4, Resources(4.0, 8, 2)),
        }
    )
    cluster.submit(1, Resources(3.0, 6), 1)
    cluster.submit(1, Resources(0.0, 0, 1), 1)
    cluster.submit(1, Resources(8.0), 1)
    assert [start.client for start in cluster.schedule()] == ["fitting", "gpu", "large"]


def test_equal_clients_get_jobs_by_load_then_in_turn() -> None:
    def chosen(*clients: Candidate) -> list[str | None]:
        total = Resources(4.0)
        machines = [Machine(each, total, total, {}) for each in clients]
        names = [each.name for each in clients]
        fitting = Fitting(machines, {SERVICE: names}, {}, 0.0)
        fitting.offer(names * 4)
        return [
            fitting.place(SERVICE, QueuedJob(n, 0, 0.0, None, Resources(4.0)), None)
            for n in range(1, 3)
        ]

    assert chosen(Candidate("busy", 0, 4, cpu=90), Candidate("idle", 0, 4, cpu=2)) == [
        "idle",
        "busy",
    ]
    assert chosen(Candidate("b", 0, 4, cpu=2, turn=7), Candidate("a", 0, 4, cpu=3, turn=5)) == [
        "a",
        "b",
    ]


def test_client_that_offers_no_resources_gets_only_jobs_that_ask_for_none() -> None:
    cluster = Cluster({"old": (2, NOTHING)})
    wide = cluster.submit(1, Resources(1.0), 1)
    narrow = cluster.submit(1, NOTHING, 1)
    assert [start.job for start in cluster.schedule()] == [narrow]
    assert wide not in cluster.started
    assert cluster.reservations == {}


def test_narrow_job_that_ends_in_time_runs_on_a_reserved_client() -> None:
    cluster = Cluster({"a": (4, Resources(4.0))})
    cluster.submit(1, Resources(3.0), 10, limit_s=10)
    cluster.schedule()
    wide = cluster.submit(2, Resources(4.0), 1)
    short = cluster.submit(3, Resources(1.0), 8, limit_s=9)
    long = cluster.submit(3, Resources(1.0), 8)
    started = {start.job for start in cluster.schedule()}
    assert started == {short}
    while any(cluster.running.values()):
        cluster.advance()
        cluster.schedule()
    assert cluster.started[wide] == 10
    assert cluster.started[long] == 11


def test_no_more_jobs_start_on_a_reserved_client_than_fit_next_to_the_wide_one() -> None:
    cluster = Cluster({"a": (8, Resources(4.0))})
    cluster.submit(1, Resources(2.0), 10)
    cluster.schedule()
    wide = cluster.submit(2, Resources(3.0), 1)
    for _ in range(3):
        cluster.submit(3, Resources(1.0), 100)
    assert len(cluster.schedule()) == 1
    cluster.advance()
    cluster.schedule()
    assert cluster.started[wide] == 10


def test_reservation_ends_when_limits_keep_its_user_from_starting() -> None:
    cluster = Cluster({"a": (4, Resources(4.0))}, limits=Limits(per_user=1, per_service=9))
    cluster.submit(1, Resources(2.0), 9)
    cluster.schedule()
    cluster.submit(2, Resources(4.0), 1)
    cluster.schedule()
    assert cluster.reservations[SERVICE].job == 2
    cluster.limits = Limits(per_user=1, per_service=9, paused={2})
    narrow = cluster.submit(3, Resources(2.0), 1)
    cluster.schedule()
    assert narrow in cluster.started


def test_clients_that_are_reserved_are_so_for_other_services_too() -> None:
    total = Resources(4.0)
    machine = Machine(Candidate("a", 1, 4), total, Resources(1.0), {9: Occupant(Resources(3), 9e9)})
    services = {"x": ["a"], "y": ["a"]}
    fitting = Fitting([machine], services, {}, 0.0)
    fitting.offer(["a"] * 3)
    assert fitting.place("x", QueuedJob(1, 0, 0.0, None, Resources(4.0)), None) is None
    assert fitting.reserved("y")
    assert fitting.place("y", QueuedJob(2, 0, 0.0, None, Resources(1.0)), None) is None
    # A slot is a resource like others: the wide job needs one of the three.
    assert fitting.place("y", QueuedJob(3, 0, 0.0, None, NOTHING), None) == "a"


def test_largest_client_has_the_most_of_each_resource() -> None:
    assert largest([Resources(4.0, 8), Resources(2.0, 16, 1)]) == Resources(4.0, 16, 1)
    assert largest([]) == NOTHING
