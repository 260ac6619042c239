"""Route table of jo-client."""

from pathlib import Path

from aiohttp import web

from job_orchestrator.client.web.inventory import inventory
from job_orchestrator.client.web.kill import kill, kill_key
from job_orchestrator.client.web.link import link
from job_orchestrator.client.web.retrieve import discard, forget, retrieve, retrieve_partial
from job_orchestrator.client.web.service import health, load, metrics
from job_orchestrator.client.web.streams import events, logs
from job_orchestrator.client.web.submit import submit
from job_orchestrator.common.web.answers import front_page
from job_orchestrator.common.web.openapi import UI_PATH

OPERATIONS = Path(__file__).with_name("openapi")
"""Folder of the OpenAPI operations of these routes."""

TAGS = {
    "payloads": "Submit payloads, fetch their results, and end them",
    "service": "The client itself",
}
"""Tags of the operations, and what they have in common."""

ROUTES = (
    web.get("/", front_page(UI_PATH, api=UI_PATH)),
    web.get("/health", health),
    web.get("/load", load),
    web.get("/metrics", metrics),
    web.get("/events", events),
    web.get("/link", link),
    web.get("/logs/{id}", logs),
    web.post("/submit", submit),
    web.get("/retrieve/{id}", retrieve),
    web.get("/retrieve_partial/{id}", retrieve_partial),
    web.get("/payloads", inventory),
    web.post("/kill/{id}", kill),
    web.post("/kill", kill_key),
    web.delete("/retrieve/{id}", forget),
    web.delete("/retrieve", discard),
)
