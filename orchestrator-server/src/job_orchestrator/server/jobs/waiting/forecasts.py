"""Forecasts of starts that users were given, and how the starts turned out."""

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.model import Job

MAX_FORECASTS = 10_000
"""Forecasts that are remembered; the oldest are dropped."""

Observe = Callable[[str, str], None]
"""Function that counts a start: service, and ``p50``, ``p90`` or ``later``."""


class Forecast(NamedTuple):
    """Times by which a job starts in half, and in nine of ten, of such cases."""

    p50: float
    p90: float


class Forecasts:
    """The first forecast of each queued job. ``on_job_changed`` subscribes to the store.

    Of the starts, half should be counted as ``p50``, four of ten as ``p90``, and one as ``later``.
    """

    def __init__(self, observe: Observe) -> None:
        self._observe = observe
        self._given: OrderedDict[int, Forecast] = OrderedDict()

    def given(self, job: Job, forecast: Forecast) -> None:
        """Remember what a user was told of the start of a job, unless it was forecast before."""
        self._given.setdefault(job.id, forecast)
        if len(self._given) > MAX_FORECASTS:
            self._given.popitem(last=False)

    def on_job_changed(self, job: Job) -> None:
        """Count the start of a job that had a forecast."""
        if job.status is JobStatus.QUEUED or job.id not in self._given:
            return
        forecast = self._given.pop(job.id)
        if job.status is not JobStatus.PROCESSING:
            return  # it ended in the queue
        at = job.changed_at
        within = "p50" if at <= forecast.p50 else "p90" if at <= forecast.p90 else "later"
        self._observe(job.service, within)
