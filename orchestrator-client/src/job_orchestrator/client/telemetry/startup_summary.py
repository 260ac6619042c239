"""Log lines at the start of jo-client: paths, limits, and which features are on."""

import os
from collections.abc import Iterator

from job_orchestrator.client.settings import Settings
from job_orchestrator.common.config.units import duration_text, size_text
from job_orchestrator.common.logs.formatters import feature_line


def summary(settings: Settings) -> Iterator[str]:
    """Summarize the settings, one line at a time. Secrets are left out."""
    yield (
        f"Payloads in {settings.data_path}, {settings.slots} slots; results that are not fetched"
        f" are kept for {duration_text(settings.max_age_s)}, uploads are limited to"
        f" {size_text(settings.max_upload_bytes)}"
    )
    cpus = os.cpu_count() or 1
    if settings.batch.is_used:
        yield (
            f"Payloads run as jobs of {settings.batch.executor}, whose nodes must see"
            f" {settings.data_path.absolute()} under this name"
        )
    elif settings.slots > cpus:
        yield (
            f"{settings.slots} payloads may run at the same time on {cpus} CPUs; if one of them"
            " keeps a CPU busy or needs much memory, set SLOTS to the number that fits"
        )
    execution = settings.execution
    yield feature_line(
        {
            "client token": settings.client_token is not None,
            "sandbox": execution.sandbox,
            "separate users for scripts": bool(execution.run_as),
            "memory limit": execution.limits.memory_bytes > 0,
            "limit of processes": execution.limits.pids > 0,
            "CPU limit": execution.limits.cpus > 0,
            "limit of connections per address": settings.max_connections_per_peer > 0,
        }
    )
