"""Log lines at the start of jo-server: paths, limits, services, and which features are on."""

from collections.abc import Iterator

from job_orchestrator.common.config.units import duration_text, size_text
from job_orchestrator.common.logs.formatters import feature_line
from job_orchestrator.server.model import Service
from job_orchestrator.server.settings.server import Settings


def summary(settings: Settings) -> Iterator[str]:
    """Summarize the settings, one line at a time. Secrets are left out."""
    yield (
        f"Files in {settings.data_path}, database {settings.db_path}; results are kept for"
        f" {duration_text(settings.max_age_s)}, uploads are limited to"
        f" {size_text(settings.max_upload_bytes)}"
    )
    yield feature_line(
        {
            "API tokens": settings.api_tokens_file is not None,
            "tokens of issuers": bool(settings.oidc_issuers),
            "client token": settings.client_token is not None,
            "CORS": bool(settings.cors_origins),
            "callbacks": bool(settings.callback_allow),
            "metrics without token": settings.metrics_open,
            "limit of queued jobs per user": settings.max_queued_per_user > 0,
            "limit of stored bytes per user": settings.max_stored_per_user > 0,
            "limit of connections per address": settings.max_connections_per_peer > 0,
        }
    )
    for service in settings.services.values():
        yield _service_line(service)


def _service_line(service: Service) -> str:
    limit = "" if service.time_limit_s is None else f", {service.time_limit_s:g} s each"
    places = [client.upload for client in service.clients]
    if service.registered:
        places.append("clients that register themselves")
    clients = ", ".join(places)
    return (
        f"Service {service.name}: {service.runs_per_user} per user, {service.max_runs} in all,"
        f" {service.max_attempts} attempts{limit}, at {clients}"
    )
