"""Prometheus metrics of jo-server.

Counters and histograms are updated by a subscriber of the store, so that they need no queries.
Gauges are set when Prometheus fetches the metrics.
"""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from job_orchestrator.common.status import ACTIVE_JOB, FINAL_JOB, JobStatus
from job_orchestrator.common.telemetry import LONG_S, QUICK_S, new_registry
from job_orchestrator.server.clients.registry import Client
from job_orchestrator.server.model import Job, Service

PREFIX = "jo_server"
NOT_ENDED = (JobStatus.QUEUED, *sorted(ACTIVE_JOB))


class Metrics:
    """The metrics of jo-server. ``on_job_changed`` subscribes to the states of jobs."""

    def __init__(self, services: Iterable[Service]) -> None:
        self.registry: CollectorRegistry = new_registry()
        # Time of the claim of each job that its client does not have yet, by id of the job.
        self._claimed_at: dict[int, float] = {}
        self._add_job_metrics()
        self._add_gauges()
        self.fetch_seconds = self._histogram(
            "fetch_seconds", "Time to fetch the results of a job and store them", QUICK_S
        )
        self.write_seconds = self._histogram(
            "sqlite_write_seconds", "Duration of a database transaction", QUICK_S
        )
        # A rate needs a first sample of 0.
        for service in services:
            self._submitted.labels(service.name)
            for status in FINAL_JOB:
                self._ended.labels(service.name, status)

    def on_job_changed(self, job: Job) -> None:
        """Count a job that was created or changed its state."""
        service = job.service
        if job.status is JobStatus.QUEUED:
            self._count_queued(job)
        elif job.status is JobStatus.PROCESSING and job.id not in self._claimed_at:
            self._claimed_at[job.id] = job.changed_at
            self._attempts.labels(service).inc()
            if job.attempt == 1:
                self._queue_seconds.labels(service).observe(job.changed_at - job.created_at)
        elif job.status is JobStatus.SUBMITTED:
            claimed_at = self._claimed_at.pop(job.id, None)
            if claimed_at is not None:
                self._dispatch_seconds.observe(max(job.changed_at - claimed_at, 0.0))
        elif job.status in FINAL_JOB and job.ended_at == job.changed_at:
            self._count_end(job)

    def count_forecast(self, service: str, within: str) -> None:
        """Count a start that was forecast."""
        self._forecasts.labels(service, within).inc()

    def _count_queued(self, job: Job) -> None:
        self._claimed_at.pop(job.id, None)
        if job.attempt > 0:
            self._failures.labels(job.service, "attempt").inc()
        elif job.changed_at == job.created_at:
            self._submitted.labels(job.service).inc()
            self._input_bytes.labels(job.service).inc(job.input_bytes or 0)

    def _count_end(self, job: Job) -> None:
        self._claimed_at.pop(job.id, None)
        self._ended.labels(job.service, job.status).inc()
        self._output_bytes.labels(job.service).inc(job.output_bytes or 0)
        if job.ran_s is not None:
            self._run_seconds.labels(job.service).observe(job.ran_s)
        if job.status is not JobStatus.COMPLETED:
            self._failures.labels(job.service, reason_of(job)).inc()

    def set_gauges(
        self,
        counts: Mapping[tuple[str, JobStatus], int],
        services: Iterable[Service],
        clients: Iterable[Client],
        event_streams: int,
    ) -> None:
        """Set the gauges to the current values."""
        self._jobs.clear()
        for service in services:
            for status in NOT_ENDED:
                self._jobs.labels(service.name, status).set(counts.get((service.name, status), 0))
        for client in clients:
            url = client.name
            self._client_connected.labels(url).set(client.pushes)
            self._client_usable.labels(url).set(not client.problem and client.state != "unknown")
            self._client_slots.labels(url).set(client.slots or 0)
            self._client_jobs.labels(url).set(len(client.jobs))
        self._event_streams.set(event_streams)

    def _add_job_metrics(self) -> None:
        self._submitted = self._counter("jobs_submitted", "Jobs that were accepted", "service")
        self._ended = self._counter("jobs_ended", "Jobs that have ended", "service", "status")
        self._attempts = self._counter("attempts", "Attempts to run a job on a client", "service")
        self._failures = self._counter(
            "failures", "Jobs and attempts that failed", "service", "reason"
        )
        self._input_bytes = self._counter("input_bytes", "Bytes of uploaded files", "service")
        self._output_bytes = self._counter("output_bytes", "Bytes of stored results", "service")
        self._queue_seconds = self._histogram(
            "queue_seconds", "Time from submission to the first claim", LONG_S, "service"
        )
        self._run_seconds = self._histogram(
            "run_seconds",
            "Time from the last start of run.sh to the end of the job",
            LONG_S,
            "service",
        )
        self._forecasts = self._counter(
            "forecast_starts",
            "Starts of jobs that had a forecast: by p50, by p90, or later",
            "service",
            "within",
        )
        self._dispatch_seconds = self._histogram(
            "dispatch_seconds", "Time from the claim of a job until its client has it", QUICK_S
        )

    def _add_gauges(self) -> None:
        self._jobs = self._gauge("jobs", "Jobs that have not ended", "service", "status")
        self._client_connected = self._gauge(
            "client_connected", "1 if the event stream of the client is open", "client"
        )
        self._client_usable = self._gauge(
            "client_usable", "1 if jobs are sent to the client, 0 if it has failed", "client"
        )
        self._client_slots = self._gauge("client_slots", "Slots of the client", "client")
        self._client_jobs = self._gauge("client_jobs", "Active jobs on the client", "client")
        self._event_streams = self._gauge("event_streams", "Open event streams")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}_total", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", text, labels, buckets=buckets, registry=self.registry)


def reason_of(job: Job) -> str:
    """Name the reason of a failure: killed, refused, time_limit, script or client.

    The script check refuses jobs. A job that its client failed or lost has no exit code.
    """
    if job.status is JobStatus.KILLED:
        return "killed"
    if job.status is JobStatus.INVALID:
        return "refused"
    if job.message.startswith("Time limit"):
        return "time_limit"
    return "client" if job.exit_code is None else "script"
