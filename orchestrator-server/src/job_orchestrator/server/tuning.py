"""Intervals, time-outs, back-offs and bounds that are not settings: one block with all values."""

from dataclasses import dataclass

from job_orchestrator.common.runtime.backoff import Backoff

CLIENT_BACKOFF = Backoff((5.0, 30.0, 120.0, 300.0), jitter=0.0)
"""Delays before a client that failed gets a job again.

Without jitter: the documentation states the delays, and after each of them only one job tries the
client, so there is nothing to spread.
"""

RESUBMIT_BACKOFF = Backoff((0.5, 1.0, 2.0, 4.0, 8.0, 15.0))
"""Delays before a submit whose answer was lost is repeated with the same key."""

RECONNECT_BACKOFF = Backoff((0.1, 0.3, 1.0, 2.0, 3.0), jitter=0.5)
"""Delays before a client whose connection broke is dialed again. Much jitter: after a restart of a
proxy, not all clients are dialed at the same moment."""

ACKNOWLEDGE_BACKOFF = Backoff((1.0, 2.0, 5.0, 15.0, 60.0))
"""Delays before an acknowledgement that failed is repeated. Nobody waits for it."""


@dataclass(frozen=True)
class Tuning:
    """Values that fit every installation. Tests pass others, to be fast or to reach a bound."""

    # Intervals of the loops when nothing wakes them.
    dispatch_interval_s: float = 0.5
    collect_interval_s: float = 0.5
    acknowledge_interval_s: float = 1.0
    abandoned_interval_s: float = 5.0
    retention_interval_s: float = 60.0
    tokens_interval_s: float = 1.0
    policy_interval_s: float = 1.0
    loop_lag_interval_s: float = 2.0

    tokens_fresh_s: float = 1.0
    """Seconds for which a check of the token file is valid, and a revoked token may be accepted."""

    client_backoff: Backoff = CLIENT_BACKOFF
    resubmit_backoff: Backoff = RESUBMIT_BACKOFF
    reconnect_backoff: Backoff = RECONNECT_BACKOFF
    acknowledge_backoff: Backoff = ACKNOWLEDGE_BACKOFF

    fetch_retry_s: float = 5.0
    """Delay before a failed fetch is repeated."""

    resume_interval_s: float = 0.5
    """Interval of the search for interrupted dispatches, which are rare."""

    reconcile_after_s: float = 60.0
    """Seconds without news after which a job is fetched, even if its client pushes events."""

    reconcile_interval_s: float = 2.0
    """Interval of such fetches from one client: the cost does not grow with the number of jobs."""

    output_patience_s: float = 30.0
    """Seconds that a failed job waits for output that its client can not hand over."""

    max_fetches_per_client: int = 32
    """Concurrent fetches from one client."""

    load_interval_s: float = 5.0
    """Interval of requests for the load of a client that has no event stream."""

    load_readings: int = 12
    """Number of requests for the load before the event stream is tried again."""

    # HTTP requests to clients. An idle time-out ends an answer that brings no byte for so long.
    packing_timeout_s: float = 300.0
    """Idle time-out of partial output: the client packs it before its answer begins."""

    followed_log_timeout_s: float = 60.0
    """Idle time-out of a followed log, which is then requested again: its client may be gone."""

    event_stream_timeout_s: float = 20.0
    """Idle time-out of an event stream; a client sends a load event every 5 s."""

    json_timeout_s: float = 120.0
    """For a whole JSON answer, so that one that trickles in byte by byte ends."""

    slow_results_after_s: float = 60.0
    """From then on results must arrive at a minimum rate on average."""
