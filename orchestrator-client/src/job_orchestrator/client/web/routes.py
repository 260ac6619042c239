"""Route table of jo-client."""

from pathlib import Path

from aiohttp import web

from job_orchestrator.client.web.inventory import inventory
from job_orchestrator.client.web.kill import kill, kill_key
from job_orchestrator.client.web.retrieve import discard, forget, retrieve, retrieve_partial
from job_orchestrator.client.web.service import health, load, metrics
from job_orchestrator.client.web.streams import events, logs
from job_orchestrator.client.web.submit import submit
from job_orchestrator.common.web.answers import ping

OPERATIONS = Path(__file__).with_name("openapi")
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
    web.get("/payloads", inventory, allow_head=False),
    web.post("/kill/{id}", kill),
    web.post("/kill", kill_key),
    web.delete("/retrieve/{id}", forget),
    web.delete("/retrieve", discard),
)
