"""Typed keys of what the application holds."""

from aiohttp import web

from job_orchestrator.client.link.connection import LinkServer
from job_orchestrator.client.payloads.drain import Drain
from job_orchestrator.client.payloads.events import EventHub
from job_orchestrator.client.payloads.intake import Intake
from job_orchestrator.client.payloads.load import LoadMeter
from job_orchestrator.client.payloads.output import ScriptOutput
from job_orchestrator.client.payloads.retention import Retention
from job_orchestrator.client.payloads.runner import Runner
from job_orchestrator.client.payloads.store import PayloadStore
from job_orchestrator.client.results.kept import KeptResults
from job_orchestrator.client.results.partial import PartialResults
from job_orchestrator.client.settings import Settings
from job_orchestrator.client.telemetry.health import HealthCheck
from job_orchestrator.client.telemetry.metrics import Metrics
from job_orchestrator.client.workspace.layout import Workspaces

SETTINGS = web.AppKey("settings", Settings)
STORE = web.AppKey("store", PayloadStore)
WORKSPACES = web.AppKey("workspaces", Workspaces)
INTAKE = web.AppKey("intake", Intake)
KEPT_RESULTS = web.AppKey("kept_results", KeptResults)
PARTIAL_RESULTS = web.AppKey("partial_results", PartialResults)
RUNNER = web.AppKey("runner", Runner)
DRAIN = web.AppKey("drain", Drain)
RETENTION = web.AppKey("retention", Retention)
SCRIPT_OUTPUT = web.AppKey("script_output", ScriptOutput)
METRICS = web.AppKey("metrics", Metrics)
EVENTS = web.AppKey("events", EventHub)
LOAD = web.AppKey("load", LoadMeter)
HEALTH = web.AppKey("health", HealthCheck)
LINKS = web.AppKey("links", LinkServer)
