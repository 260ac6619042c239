"""Typed keys of what the application holds."""

from aiohttp import web

from orchestrator_server.change_feed import ChangeFeed
from orchestrator_server.health import HealthCheck
from orchestrator_server.job_logs import JobLogs
from orchestrator_server.journal import Journal
from orchestrator_server.metrics import Metrics
from orchestrator_server.overview import Overview
from orchestrator_server.principal import Principal
from orchestrator_server.settings import Settings
from orchestrator_server.submission import Submission
from orchestrator_server.tokens import Tokens

SETTINGS = web.AppKey("settings", Settings)
FEED = web.AppKey("feed", ChangeFeed)
SUBMISSION = web.AppKey("submission", Submission)
HEALTH = web.AppKey("health", HealthCheck)
JOB_LOGS = web.AppKey("job_logs", JobLogs)
JOURNAL = web.AppKey("journal", Journal)
METRICS = web.AppKey("metrics", Metrics)
OVERVIEW = web.AppKey("overview", Overview)
TOKENS = web.AppKey("tokens", Tokens)

PRINCIPAL = web.RequestKey("principal", Principal)
"""Who asks; on every route that is not open to everybody."""
