"""The route table."""

from aiohttp import web

from orchestrator_client.web.events import events
from orchestrator_client.web.health import health, load
from orchestrator_client.web.kill import kill, kill_key
from orchestrator_client.web.logs import logs
from orchestrator_client.web.metrics import metrics
from orchestrator_client.web.retrieve import discard, forget, retrieve, retrieve_partial
from orchestrator_client.web.submit import submit
from orchestrator_common.web.answers import ping

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
