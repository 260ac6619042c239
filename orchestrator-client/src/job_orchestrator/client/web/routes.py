"""Route table of jo-client."""

from importlib import resources

from aiohttp import web

from job_orchestrator.client.web.events import events
from job_orchestrator.client.web.kill import kill, kill_key
from job_orchestrator.client.web.logs import logs
from job_orchestrator.client.web.retrieve import discard, forget, retrieve, retrieve_partial
from job_orchestrator.client.web.service import health, load, metrics
from job_orchestrator.client.web.submit import submit
from job_orchestrator.common.web.answers import ping

OPERATIONS = resources.files("job_orchestrator.client.web") / "openapi"
"""Folder of the OpenAPI operations of these routes."""

ROUTES = (
    web.get("/", ping, allow_head=False),
    web.get("/health", health, allow_head=False),
    web.get("/load", load, allow_head=False),
    web.get("/metrics", metrics, allow_head=False),
    web.get("/events", events, allow_head=False),
    web.get("/logs/{id}", logs, allow_head=False),
    web.post("/submit", submit),
    web.get("/retrieve/{id}", retrieve, allow_head=False),
    web.get("/retrieve_partial/{id}", retrieve_partial, allow_head=False),
    web.post("/kill/{id}", kill),
    web.post("/kill", kill_key),
    web.delete("/retrieve/{id}", forget),
    web.delete("/retrieve", discard),
)
