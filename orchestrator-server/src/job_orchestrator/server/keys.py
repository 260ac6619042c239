"""Typed keys of what the application holds."""

from aiohttp import web

from job_orchestrator.server.auth.authentication import Authentication
from job_orchestrator.server.clients.registrations import ClientRegistrations
from job_orchestrator.server.clients.registry import ClientRegistry
from job_orchestrator.server.jobs.changes import ChangeFeed
from job_orchestrator.server.jobs.control import QueueControl
from job_orchestrator.server.jobs.event_streams import EventStreams
from job_orchestrator.server.jobs.logs import JobLogs
from job_orchestrator.server.jobs.queries import JobQueries
from job_orchestrator.server.jobs.results import JobResults
from job_orchestrator.server.jobs.submit import JobSubmission
from job_orchestrator.server.jobs.terminate import JobTermination
from job_orchestrator.server.jobs.waiting.explanation import Explanations
from job_orchestrator.server.maintenance.health import HealthCheck
from job_orchestrator.server.settings.server import Settings
from job_orchestrator.server.telemetry.metrics import Metrics

AUTHENTICATION = web.AppKey("authentication", Authentication)
SETTINGS = web.AppKey("settings", Settings)
CLIENTS = web.AppKey("clients", ClientRegistry)
REGISTRATIONS = web.AppKey("registrations", ClientRegistrations)
FEED = web.AppKey("feed", ChangeFeed)
CONTROL = web.AppKey("control", QueueControl)
SUBMISSION = web.AppKey("submission", JobSubmission)
HEALTH = web.AppKey("health", HealthCheck)
JOB_LOGS = web.AppKey("job_logs", JobLogs)
EXPLANATIONS = web.AppKey("explanations", Explanations)
EVENT_STREAMS = web.AppKey("event_streams", EventStreams)
METRICS = web.AppKey("metrics", Metrics)
QUERIES = web.AppKey("queries", JobQueries)
RESULTS = web.AppKey("results", JobResults)
TERMINATION = web.AppKey("termination", JobTermination)
