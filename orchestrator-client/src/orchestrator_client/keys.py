"""Typed keys of what the application holds."""

from aiohttp import web

from orchestrator_client.cleaner import Cleaner
from orchestrator_client.drain import Drain
from orchestrator_client.event_hub import EventHub
from orchestrator_client.health import HealthCheck
from orchestrator_client.intake import Intake
from orchestrator_client.load import LoadMeter
from orchestrator_client.metrics import Metrics
from orchestrator_client.partial_results import PartialResults
from orchestrator_client.payloads import PayloadStore
from orchestrator_client.runner import Runner
from orchestrator_client.script_output import ScriptOutput
from orchestrator_client.settings import Settings
from orchestrator_client.workspace import Workspaces

SETTINGS = web.AppKey("settings", Settings)
STORE = web.AppKey("store", PayloadStore)
WORKSPACES = web.AppKey("workspaces", Workspaces)
INTAKE = web.AppKey("intake", Intake)
PARTIAL_RESULTS = web.AppKey("partial_results", PartialResults)
RUNNER = web.AppKey("runner", Runner)
DRAIN = web.AppKey("drain", Drain)
CLEANER = web.AppKey("cleaner", Cleaner)
SCRIPT_OUTPUT = web.AppKey("script_output", ScriptOutput)
METRICS = web.AppKey("metrics", Metrics)
EVENTS = web.AppKey("events", EventHub)
LOAD = web.AppKey("load", LoadMeter)
HEALTH = web.AppKey("health", HealthCheck)
