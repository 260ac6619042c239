"""A portal in aiohttp: accepts a text, pushes the states of its job, and serves the results.

pip install ./orchestrator-common
python examples/portals/aiohttp_portal.py
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from job_orchestrator.sdk import ApiError, AsyncClient, JobDetail, JobNotFound

BLOCK_BYTES = 1 << 20
SCRIPT = b"wc input.txt > counts.txt\n"
SERVER = web.AppKey("SERVER", AsyncClient)
URL = web.AppKey("URL", str)


async def connect(app: web.Application) -> AsyncIterator[None]:
    """Keep one client for as long as the portal runs."""
    async with AsyncClient(app[URL], patience_s=5) as server:
        app[SERVER] = server
        yield


def user_id(request: web.Request) -> int:
    """Return the user who is logged in; a real portal takes it from its session."""
    return 1


async def own_job(request: web.Request) -> JobDetail:
    """Return the job in the path. Jobs of other users are not found."""
    job = await request.app[SERVER].job(int(request.match_info["id"]))
    if job.user_id != user_id(request):
        raise web.HTTPNotFound
    return job


async def submit(request: web.Request) -> web.Response:
    """Submit a job that counts the words of the text in the body."""
    # A form that is sent twice with the same key creates one job.
    key = request.headers.get("Idempotency-Key")
    job = await request.app[SERVER].submit(
        "example",
        {"run.sh": SCRIPT, "input.txt": await request.read()},
        user_id=user_id(request),
        idempotency_key=key,
    )
    return web.json_response({"id": job.id, "status": job.status}, status=201)


async def events(request: web.Request) -> web.StreamResponse:
    """Push each state of a job to a browser's EventSource."""
    job = await own_job(request)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    async for change in request.app[SERVER].watch(job.id):
        await response.write(b"data: %b\n\n" % msgspec.json.encode(change))
    return response


async def results(request: web.Request) -> web.StreamResponse:
    """Serve the results of a job."""
    job = await own_job(request)
    with tempfile.TemporaryDirectory() as folder:
        path = await request.app[SERVER].download(job.id, Path(folder) / "results.zip")
        response = web.StreamResponse(headers={"Content-Type": "application/zip"})
        await response.prepare(request)
        with path.open("rb") as file:
            while block := await asyncio.to_thread(file.read, BLOCK_BYTES):
                await response.write(block)
        return response


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer errors of jo-server with an HTTP status and its message."""
    try:
        return await handler(request)
    except JobNotFound as error:
        return web.json_response({"message": str(error)}, status=404)
    except ApiError as error:
        return web.json_response({"message": str(error)}, status=503)


def create_app(url: str) -> web.Application:
    """Create a portal for the jo-server at ``url``."""
    app = web.Application(middlewares=[errors])
    app[URL] = url
    app.cleanup_ctx.append(connect)
    app.add_routes(
        [
            web.post("/jobs", submit),
            web.get("/jobs/{id:\\d+}/events", events),
            web.get("/jobs/{id:\\d+}/results", results),
        ]
    )
    return app


if __name__ == "__main__":
    web.run_app(create_app(os.environ.get("JO_URL", "http://localhost:5000")), port=8080)
