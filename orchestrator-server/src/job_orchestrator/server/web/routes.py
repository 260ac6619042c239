"""Route table of jo-server."""

from pathlib import Path

from aiohttp import web

from job_orchestrator.common.web.answers import front_page
from job_orchestrator.common.web.openapi import UI_PATH
from job_orchestrator.server.web.access import CONNECT
from job_orchestrator.server.web.dashboard import PATH as DASHBOARD_PATH
from job_orchestrator.server.web.jobs import (
    array,
    change,
    download_array,
    explanation,
    files,
    job,
    jobs,
    terminate,
    terminate_array,
)
from job_orchestrator.server.web.result_files import result_file
from job_orchestrator.server.web.results import download, download_partial
from job_orchestrator.server.web.service import (
    clients,
    connect,
    drain_client,
    forget_client,
    health,
    metrics,
    pause,
    pauses,
    resume,
    resume_client,
    services,
    sign_in,
    sign_in_options,
    stats,
    users,
    whoami,
)
from job_orchestrator.server.web.streams import events, job_events, job_logs
from job_orchestrator.server.web.upload import upload

OPERATIONS = Path(__file__).with_name("openapi")
"""Folder of the OpenAPI operations of these routes."""

TAGS = {
    "jobs": "Submit jobs, follow them, fetch their results, and terminate them",
    "overview": "Services, compute machines, statistics and pauses",
    "service": "The server itself",
}
"""Tags of the operations, and what they have in common."""

ROUTES = (
    web.get("/", front_page(DASHBOARD_PATH, dashboard=DASHBOARD_PATH, api=UI_PATH)),
    web.get("/health", health),
    web.get("/whoami", whoami),
    web.get("/users", users),
    web.get("/sign-in", sign_in_options),
    web.post("/sign-in", sign_in),
    web.post("/upload", upload),
    web.get("/download/{id}", download),
    web.get("/download_partial/{id}", download_partial),
    web.get("/jobs", jobs),
    web.get("/jobs/{id}", job),
    web.patch("/jobs/{id}", change),
    web.get("/jobs/{id}/explanation", explanation),
    web.get("/jobs/{id}/files", files),
    web.get(r"/jobs/{id}/files/{path:[\s\S]+}", result_file),
    web.get("/jobs/{id}/events", job_events),
    web.get("/jobs/{id}/logs", job_logs),
    web.get("/arrays/{id}", array),
    web.get("/arrays/{id}/download", download_array),
    web.post("/arrays/{id}/terminate", terminate_array),
    web.get("/events", events),
    web.get("/services", services),
    web.get("/clients", clients),
    web.post("/clients/{name}/drain", drain_client),
    web.post("/clients/{name}/resume", resume_client),
    web.delete("/clients/{name}", forget_client),
    web.get(CONNECT, connect),
    web.get("/pauses", pauses),
    web.post("/pause", pause),
    web.post("/resume", resume),
    web.get("/metrics", metrics),
    web.get("/stats", stats),
    web.post("/terminate/{id}", terminate),
)
