"""Typed keys of what the application holds."""

from aiohttp import web

from job_orchestrator.server.auth.principal import Principal
from job_orchestrator.server.auth.tokens import Tokens
from job_orchestrator.server.clients.registry import ClientRegistry
from job_orchestrator.server.jobs.changes import ChangeFeed
from job_orchestrator.server.jobs.event_streams import Journal
from job_orchestrator.server.jobs.logs import JobLogs
from job_orchestrator.server.jobs.queries import Overview
from job_orchestrator.server.jobs.submit import Submission
from job_orchestrator.server.settings.server import Settings
from job_orchestrator.server.telemetry.health import HealthCheck
from job_orchestrator.server.telemetry.metrics import Metrics

SETTINGS = web.AppKey("settings", Settings)
CLIENTS = web.AppKey("clients", ClientRegistry)
FEED = web.AppKey("feed", ChangeFeed)
SUBMISSION = web.AppKey("submission", Submission)
HEALTH = web.AppKey("health", HealthCheck)
JOB_LOGS = web.AppKey("job_logs", JobLogs)
JOURNAL = web.AppKey("journal", Journal)
METRICS = web.AppKey("metrics", Metrics)
OVERVIEW = web.AppKey("overview", Overview)
TOKENS = web.AppKey("tokens", Tokens)

PRINCIPAL = web.RequestKey("principal", Principal)
"""The principal that sent the request; set on every route that is not public."""
