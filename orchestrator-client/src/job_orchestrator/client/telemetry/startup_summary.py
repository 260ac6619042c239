"""What the log says of the settings at the start: what was set, what is on, what is off."""

from collections.abc import Iterator

from job_orchestrator.client.settings import Settings
from job_orchestrator.common.config.reader import on_and_off


def summary(settings: Settings) -> Iterator[str]:
    """One line after the other; no secrets."""
    yield (
        f"Payloads in {settings.data_path}, {settings.slots} slots; results that nobody fetches are"
        f" kept for {settings.max_age_s:g} s, uploads may have {settings.max_upload_bytes} bytes"
    )
    execution = settings.execution
    yield on_and_off(
        {
            "client token": settings.client_token is not None,
            "sandbox": execution.sandbox,
            "users of their own for scripts": bool(execution.run_as),
            "memory limit": execution.limits.memory_bytes > 0,
            "limit of processes": execution.limits.pids > 0,
            "CPU limit": execution.limits.cpus > 0,
            "limit of connections per address": settings.max_connections_per_peer > 0,
        }
    )
