"""What the log says of the settings at the start: what was set, what is on, what is off."""

from collections.abc import Iterator

from job_orchestrator.common.config.reader import on_and_off
from job_orchestrator.server.model import Service
from job_orchestrator.server.settings.server import Settings


def summary(settings: Settings) -> Iterator[str]:
    """One line after the other; no secrets."""
    yield (
        f"Files in {settings.data_path}, database {settings.db_path}; results are kept for"
        f" {settings.max_age_s:g} s, uploads may have {settings.max_upload_bytes} bytes"
    )
    yield on_and_off(
        {
            "API tokens": settings.api_tokens_file is not None,
            "client token": settings.client_token is not None,
            "CORS": bool(settings.cors_origins),
            "callbacks": bool(settings.callback_rules.patterns),
            "metrics without token": settings.metrics_open,
            "limit of queued jobs per user": settings.max_queued_per_user > 0,
            "limit of stored bytes per user": settings.max_stored_per_user > 0,
            "limit of connections per address": settings.max_connections_per_peer > 0,
        }
    )
    for service in settings.services.values():
        yield _service(service)


def _service(service: Service) -> str:
    limit = "" if service.time_limit_s is None else f", {service.time_limit_s:g} s each"
    clients = ", ".join(client.upload for client in service.clients)
    return (
        f"Service {service.name}: {service.runs_per_user} per user, {service.max_runs} in all,"
        f" {service.max_attempts} attempts{limit}, at {clients}"
    )
