"""Settings of a client that contradict those of the server.

Each program starts with its own settings, and neither can see those of the other. Clients report
theirs with their load, so that a contradiction shows when a client connects and not when a job
fails.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from job_orchestrator.common.config.units import size_text
from job_orchestrator.common.messages.payloads import ClientLimits


@dataclass(frozen=True)
class ServerLimits:
    """Settings of the server that those of its clients must agree with. Sizes of 0: no limit."""

    max_upload_bytes: int = 0
    max_result_bytes: int = 0
    lost_after_s: float = 0.0


def contradictions(client: ClientLimits, server: ServerLimits) -> Iterator[str]:
    """Yield a message for the administrator for each pair of settings that don't agree."""
    if client.max_upload_bytes < server.max_upload_bytes:
        yield (
            f"its MAX_UPLOAD_SIZE is {size_text(client.max_upload_bytes)}, that of jo-server is"
            f" {size_text(server.max_upload_bytes)}: larger jobs for it are refused; set both alike"
        )
    if 0 < server.max_result_bytes < (client.max_result_bytes or float("inf")):
        limit = size_text(client.max_result_bytes) if client.max_result_bytes else "not set"
        yield (
            f"its MAX_RESULT_SIZE is {limit}, that of jo-server is"
            f" {size_text(server.max_result_bytes)}: larger results are sent and then dropped, with"
            " the output of run.sh; set both alike"
        )
    if client.max_age_s < server.lost_after_s:
        yield (
            f"its MAX_AGE is {client.max_age_s:g} s, LOST_AFTER of jo-server is"
            f" {server.lost_after_s:g} s: it removes results that jo-server still waits for; raise"
            " its MAX_AGE"
        )
