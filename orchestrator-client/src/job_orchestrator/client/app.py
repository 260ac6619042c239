"""The composition root: what the client consists of, and in which order it starts and stops."""

import asyncio
import logging
from collections.abc import AsyncIterator

from aiohttp import web

from job_orchestrator.client import __version__, keys
from job_orchestrator.client.errors import STATUSES
from job_orchestrator.client.executors.local.cgroups.manager import open_cgroups
from job_orchestrator.client.executors.local.executor import LocalExecutor
from job_orchestrator.client.executors.local.sandbox import open_sandbox
from job_orchestrator.client.executors.local.self_test import prove
from job_orchestrator.client.executors.local.users import open_users
from job_orchestrator.client.payloads.drain import Drain
from job_orchestrator.client.payloads.events import EventHub
from job_orchestrator.client.payloads.ids import PayloadIds
from job_orchestrator.client.payloads.intake import Intake
from job_orchestrator.client.payloads.load import LoadMeter
from job_orchestrator.client.payloads.output import ScriptOutput
from job_orchestrator.client.payloads.retention import Cleaner
from job_orchestrator.client.payloads.runner import Runner
from job_orchestrator.client.payloads.store import PayloadStore, open_payloads
from job_orchestrator.client.results.packer import Packer
from job_orchestrator.client.results.partial import PartialResults
from job_orchestrator.client.settings import Settings
from job_orchestrator.client.telemetry.health import HealthCheck
from job_orchestrator.client.telemetry.metrics import PREFIX, Metrics
from job_orchestrator.client.telemetry.startup_summary import summary
from job_orchestrator.client.web.answers import SCHEMAS, error_body
from job_orchestrator.client.web.guard import is_open, server_only
from job_orchestrator.client.web.routes import ROUTES
from job_orchestrator.client.workspace.deferred_removal import DeferredRemoval
from job_orchestrator.client.workspace.layout import Workspaces
from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.runtime.loops import Loop
from job_orchestrator.common.runtime.threads import in_thread, start_threads
from job_orchestrator.common.storage.form_receiver import FormLimits
from job_orchestrator.common.web.bodies import MAX_BODY_BYTES, bounded_bodies, plain_bodies
from job_orchestrator.common.web.errors import error_middleware
from job_orchestrator.common.web.metrics import LoopLag
from job_orchestrator.common.web.openapi import Api, document_routes
from job_orchestrator.common.web.request_ids import add_request_ids

logger = logging.getLogger(__name__)

LOAD_INTERVAL_S = 5.0
LAG_INTERVAL_S = 2.0
REAPER_INTERVAL_S = 1.0

WORKER_THREADS = 32
"""Short work with files and processes: none of it waits for anything but the disk. All are started
at once: when scripts have used up the machine's processes, the client must be able to end some."""

LARGE_TREES = web.AppKey("large_trees", list[DeferredRemoval])
LOOPS = web.AppKey("loops", list[Loop])


def create_app(settings: Settings) -> web.Application:
    """Build the client's application. What it needs is opened when it is run."""
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    add_request_ids(app)
    app.middlewares.extend(
        [
            error_middleware(STATUSES, error_body),
            bounded_bodies("/submit"),
            plain_bodies,
            server_only(settings.client_token),
        ]
    )
    app[keys.SETTINGS] = settings
    app[keys.METRICS] = Metrics()
    document_routes(
        app,
        ROUTES,
        Api(
            title="jo-client",
            version=__version__,
            description="Runs payloads. For jo-server only.",
            schemas=SCHEMAS,
            error="Payload",
            error_body=error_body,
            is_open=is_open,
        ),
    )
    app.cleanup_ctx.append(_resources)
    app.on_startup.append(_start)
    app.on_shutdown.append(_stop)
    return app


async def _resources(app: web.Application) -> AsyncIterator[None]:
    """Take the data folder, end and remove what an earlier life left, open the database."""
    start_threads(WORKER_THREADS)
    settings = app[keys.SETTINGS]
    workspaces = Workspaces(settings.data_path)
    await in_thread(workspaces.prepare)
    with workspaces.locked():
        users = open_users(settings.execution.run_as)
        cgroups = await in_thread(open_cgroups, settings.execution, workspaces.root)
        try:
            executor = LocalExecutor(
                workspaces.root,
                settings.script_environment,
                kill_grace_s=settings.kill_grace_s,
                cgroups=cgroups,
                users=users,
                sandbox=await in_thread(
                    open_sandbox,
                    settings.execution,
                    workspaces.data_path,
                    settings.script_environment["PATH"],
                ),
            )
            await executor.clear()
            reach(Point.CLIENT_CLEARING)
            await in_thread(workspaces.clear)
            if users is not None:
                await in_thread(workspaces.allow_traversal)
            await prove(executor, workspaces, settings.execution)
            async with open_payloads() as store:
                _compose(app, workspaces, executor, store)
                yield
            await executor.clear()
        finally:
            if cgroups is not None:
                await in_thread(cgroups.close)


def _compose(
    app: web.Application, workspaces: Workspaces, executor: LocalExecutor, store: PayloadStore
) -> None:
    """Wire the parts together. Who has to know of a changed payload is a listener of the store."""
    settings = app[keys.SETTINGS]
    hub = EventHub()
    packer = Packer(settings.max_result_bytes)
    runner = Runner(store, workspaces, executor, packer, slots=settings.slots)
    meter = LoadMeter(store, settings.slots, hub.publish_load)
    intake = Intake(
        store,
        workspaces,
        PayloadIds(settings.data_path / "next-id"),
        FormLimits(settings.max_upload_bytes, min_rate=settings.min_upload_rate),
    )
    cleaner = Cleaner(store, workspaces, max_age_s=settings.max_age_s)
    metrics = app[keys.METRICS]
    lag = LoopLag(PREFIX, metrics.registry)
    large_trees = [cleaner.large, executor.large_leftovers]
    loops = [
        runner.loop,
        Loop("reaper", executor.reap, interval_s=REAPER_INTERVAL_S),
        Loop("loop lag", lag.run_pass, interval_s=LAG_INTERVAL_S),
        Loop("load meter", meter.run_pass, interval_s=LOAD_INTERVAL_S),
        cleaner.loop,
        *(trees.loop for trees in large_trees),
    ]

    store.subscribe(hub.publish_payload)
    store.subscribe(runner.note)
    output = ScriptOutput(store, workspaces)
    store.subscribe(output.note)
    store.subscribe(metrics.on_payload_changed)
    app[keys.SCRIPT_OUTPUT] = output
    app[keys.STORE] = store
    app[keys.WORKSPACES] = workspaces
    app[keys.INTAKE] = intake
    app[keys.PARTIAL_RESULTS] = PartialResults(packer)
    app[keys.RUNNER] = runner
    app[keys.DRAIN] = Drain(store, intake, runner, meter, hub, settings.drain_timeout_s)
    app[keys.CLEANER] = cleaner
    app[keys.EVENTS] = hub
    app[keys.LOAD] = meter
    app[keys.HEALTH] = HealthCheck(workspaces, loops)
    app[LARGE_TREES] = large_trees
    app[LOOPS] = loops


async def _start(app: web.Application) -> None:
    if app[keys.SETTINGS].client_token is None:
        logger.warning("CLIENT_TOKEN is not set: whoever reaches this port can run programs here")
    for line in app[keys.SETTINGS].warnings:
        logger.warning("%s", line)
    for line in summary(app[keys.SETTINGS]):
        logger.info("%s", line)
    # Whoever asks first is to get a load, and not none yet.
    await app[keys.LOAD].run_pass()
    for loop in app[LOOPS]:
        loop.start()


async def _stop(app: web.Application) -> None:
    # The streams first: what ends from here on is not an end that a server should hear of.
    app[keys.EVENTS].close()
    app[keys.SCRIPT_OUTPUT].close()
    for trees in app[LARGE_TREES]:
        trees.stop()
    await asyncio.gather(*(loop.stop() for loop in app[LOOPS]))
    await app[keys.RUNNER].stop()
