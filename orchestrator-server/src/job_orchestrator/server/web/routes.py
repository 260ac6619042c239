"""Route table of jo-server."""

from pathlib import Path

from aiohttp import web

from job_orchestrator.common.web.answers import ping
from job_orchestrator.server.web.jobs import files, job, jobs, terminate
from job_orchestrator.server.web.results import download, download_partial
from job_orchestrator.server.web.service import clients, health, metrics, services, stats, whoami
from job_orchestrator.server.web.streams import events, job_events, job_logs
from job_orchestrator.server.web.upload import upload

OPERATIONS = Path(__file__).with_name("openapi")
"""Folder of the OpenAPI operations of these routes."""

ROUTES = (
    web.get("/", ping, allow_head=False),
    web.get("/health", health, allow_head=False),
    web.get("/whoami", whoami, allow_head=False),
    web.post("/upload", upload),
    web.get("/download/{id}", download, allow_head=False),
    web.get("/download_partial/{id}", download_partial, allow_head=False),
    web.get("/jobs", jobs, allow_head=False),
    web.get("/jobs/{id}", job, allow_head=False),
    web.get("/jobs/{id}/files", files, allow_head=False),
    web.get("/jobs/{id}/events", job_events, allow_head=False),
    web.get("/jobs/{id}/logs", job_logs, allow_head=False),
    web.get("/events", events, allow_head=False),
    web.get("/services", services, allow_head=False),
    web.get("/clients", clients, allow_head=False),
    web.get("/metrics", metrics, allow_head=False),
    web.get("/stats", stats, allow_head=False),
    web.post("/terminate/{id}", terminate),
)
