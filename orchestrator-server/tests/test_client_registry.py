"""Registry of clients: back-off after failures, trials, and assigned jobs."""

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from job_orchestrator.common.messages.payloads import LoadEvent
from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.clients.base import ClientTransport
from job_orchestrator.server.clients.connector import TunnelConnector
from job_orchestrator.server.clients.registry import Client, ClientRegistry
from job_orchestrator.server.model import ClientUrls, Job, Registration, Service
from job_orchestrator.server.tuning import CLIENT_BACKOFF
from sample_job import JOB

SERVICE = Service(
    "example",
    (ClientUrls("a", "", ""), ClientUrls("b", "", "")),
    runs_per_user=5,
    max_runs=10,
    max_attempts=3,
    time_limit_s=None,
)


class Clock:
    """Monotonic clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Create a clock."""
    return Clock()


@pytest.fixture
def registry(clock: Clock) -> ClientRegistry:
    """Create a registry of the clients a and b."""
    # The registry reads nothing but the name of a transport.
    transports = [cast(ClientTransport, SimpleNamespace(name=name)) for name in ("a", "b")]
    registry = ClientRegistry(transports, CLIENT_BACKOFF, clock)
    for client in registry:
        client.pushes = True
    return registry


def usable(registry: ClientRegistry) -> list[str]:
    return [client.name for client in registry.usable(SERVICE)]


def job(status: JobStatus, client: str, dest_id: int | None = None) -> Job:
    return replace(JOB, status=status, client=client, dest_id=dest_id)


def client_a(registry: ClientRegistry) -> Client:
    client = registry.get("a")
    assert client is not None
    return client


def test_client_that_fails_again_and_again_backs_off_for_the_documented_times(
    registry: ClientRegistry, clock: Clock
) -> None:
    client, delays = client_a(registry), []
    for _ in range(5):
        delays.append(registry.mark_failed(client, "down"))
        assert usable(registry) == ["b"]
        clock.now += delays[-1]
        assert usable(registry) == ["a", "b"]
    assert delays == [5.0, 30.0, 120.0, 300.0, 300.0]


def test_failures_during_a_back_off_are_one_failure(registry: ClientRegistry, clock: Clock) -> None:
    client = client_a(registry)
    registry.mark_failed(client, "down")
    clock.now += 2.0
    assert registry.mark_failed(client, "down as well") == 3.0
    assert (client.failures, client.problem) == (1, "down")


def test_client_that_failed_gets_one_job_until_it_works(
    registry: ClientRegistry, clock: Clock
) -> None:
    client = client_a(registry)
    clock.now += registry.mark_failed(client, "down")
    registry.begin_attempt(client)
    assert usable(registry) == ["b"]
    registry.mark_working(client)
    registry.begin_attempt(client)
    assert usable(registry) == ["a", "b"]
    assert (client.failures, client.problem) == (0, "")


def test_draining_client_is_not_usable_and_the_problem_says_so(registry: ClientRegistry) -> None:
    load = LoadEvent(1.0, 2.0, 4, running=0, waiting=0, draining=True)
    registry.on_load(client_a(registry), load)
    assert usable(registry) == ["b"]
    assert registry.problems(SERVICE) == ["a is stopping and takes no new jobs", ""]
    assert registry.problem(SERVICE) == ""


def test_client_with_a_fault_is_not_usable_and_its_fault_is_the_problem(
    registry: ClientRegistry,
) -> None:
    load = LoadEvent(1.0, 2.0, 4, running=0, waiting=0, draining=True, problem="The disk is full")
    registry.on_load(client_a(registry), load)
    assert usable(registry) == ["b"]
    assert registry.problems(SERVICE) == ["a can't run jobs at present: The disk is full", ""]
    registry.on_load(client_a(registry), LoadEvent(1.0, 2.0, 4, running=0, waiting=0))
    assert registry.problems(SERVICE) == ["", ""]


def test_service_has_a_problem_only_if_all_its_clients_have_one(registry: ClientRegistry) -> None:
    for client in registry:
        registry.mark_failed(client, f"{client.name} is down")
    assert registry.problem(SERVICE) == "a is down"


def test_active_job_is_counted_at_its_client_until_it_moves_or_ends(
    registry: ClientRegistry,
) -> None:
    a, b = registry
    registry.on_job_changed(job(JobStatus.PROCESSING, client="a"))
    assert (list(a.jobs), list(a.payloads)) == ([1], [])
    registry.on_job_changed(job(JobStatus.SUBMITTED, client="a", dest_id=7))
    assert (list(a.jobs), list(a.payloads)) == ([1], [7])
    registry.on_job_changed(job(JobStatus.PROCESSING, client="b"))
    assert (list(a.jobs), list(a.payloads), list(b.jobs)) == ([], [], [1])
    registry.on_job_changed(job(JobStatus.COMPLETED, client="b", dest_id=9))
    assert (list(b.jobs), list(b.payloads)) == ([], [])


def test_job_of_a_client_that_is_not_configured_is_counted_nowhere(
    registry: ClientRegistry,
) -> None:
    registry.on_job_changed(job(JobStatus.RUNNING, client="c"))
    assert all(not client.jobs for client in registry)
    assert registry.get("c") is None


def test_client_that_is_not_connected_gets_no_jobs(registry: ClientRegistry) -> None:
    client_a(registry).pushes = False
    assert usable(registry) == ["b"]


def test_client_without_an_event_stream_is_used_once_it_has_answered(
    registry: ClientRegistry,
) -> None:
    client = client_a(registry)
    client.pushes = client.has_events = False
    assert usable(registry) == ["b"]
    client.cpu = 12.5
    assert usable(registry) == ["a", "b"]


def load(*, running: int, waiting: int = 0) -> LoadEvent:
    return LoadEvent(1.0, 1.0, 4, running, waiting)


def test_slot_is_free_again_when_the_script_has_ended(registry: ClientRegistry) -> None:
    client, notified = client_a(registry), []
    registry.on_job_changed(job(JobStatus.RUNNING, "a", 7))
    registry.subscribe_to_capacity(lambda: notified.append(client.occupied))
    registry.on_packing(client, job(JobStatus.RUNNING, "a", 7))
    assert notified == [0]
    registry.on_job_changed(job(JobStatus.COMPLETED, "a", 7))
    assert (client.occupied, client.packing) == (0, set())


def test_slots_that_payloads_of_other_servers_occupy_are_not_free(registry: ClientRegistry) -> None:
    client = client_a(registry)
    registry.on_job_changed(job(JobStatus.RUNNING, "a", 7))
    registry.on_load(client, load(running=2, waiting=1))
    assert (client.foreign, client.occupied) == (2, 3)
    registry.on_load(client, load(running=0))
    assert (client.foreign, client.occupied) == (0, 1)


def test_registered_client_answers_only_for_jobs_of_its_services(
    registry: ClientRegistry,
) -> None:
    configured = client_a(registry)
    urls = ClientUrls("http://n.localhost/submit", "", "", registered_as="n")
    transport = cast("ClientTransport", SimpleNamespace(urls=urls, name="n"))
    first = Registration("n", "identity-1", ("s",), 0.0)
    # The connector is used only when the client is called.
    client = registry.register(transport, first, cast("TunnelConnector", None))
    its_job = replace(JOB, client=client.name)
    assert registry.of(its_job) is client
    registry.update(client, Registration("n", "identity-2", ("other",), 0.0))
    assert registry.of(its_job) is None
    assert registry.of(replace(JOB, client=configured.name, service="other")) is configured
