"""The composition root: what the client consists of, and in which order it starts and stops."""

import asyncio
import logging
from collections.abc import AsyncIterator

from aiohttp import web

from orchestrator_client import __version__, keys
from orchestrator_client.archive import Packer
from orchestrator_client.cleaner import Cleaner
from orchestrator_client.drain import Drain
from orchestrator_client.errors import STATUSES
from orchestrator_client.event_hub import EventHub
from orchestrator_client.executors.cgroups import open_cgroups
from orchestrator_client.executors.local import LocalExecutor
from orchestrator_client.executors.proof import prove
from orchestrator_client.executors.sandbox import open_sandbox
from orchestrator_client.executors.script_users import open_users
from orchestrator_client.health import HealthCheck
from orchestrator_client.intake import Intake
from orchestrator_client.large_trees import LargeTrees
from orchestrator_client.load import LoadMeter
from orchestrator_client.metrics import PREFIX, Metrics
from orchestrator_client.partial_results import PartialResults
from orchestrator_client.payload_ids import PayloadIds
from orchestrator_client.payloads import PayloadStore, open_payloads
from orchestrator_client.runner import Runner
from orchestrator_client.script_output import ScriptOutput
from orchestrator_client.settings import Settings
from orchestrator_client.startup_summary import summary
from orchestrator_client.web.answers import SCHEMAS, error_body
from orchestrator_client.web.guard import is_open, server_only
from orchestrator_client.web.routes import ROUTES
from orchestrator_client.workspace import Workspaces
from orchestrator_common.faults import Point, reach
from orchestrator_common.loop import Loop
from orchestrator_common.metrics import LoopLag
from orchestrator_common.multipart import FormLimits
from orchestrator_common.threads import in_thread, start_threads
from orchestrator_common.web.bodies import MAX_BODY_BYTES, bounded_bodies, plain_bodies
from orchestrator_common.web.error_answers import error_middleware
from orchestrator_common.web.openapi import Api, document_routes
from orchestrator_common.web.request_ids import add_request_ids

logger = logging.getLogger(__name__)

LOAD_INTERVAL_S = 5.0
LAG_INTERVAL_S = 2.0
REAPER_INTERVAL_S = 1.0

WORKER_THREADS = 32
"""Short work with files and processes: none of it waits for anything but the disk. All are started
at once: when scripts have used up the machine's processes, the client must be able to end some."""

LARGE_TREES = web.AppKey("large_trees", list[LargeTrees])
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
                await in_thread(workspaces.let_through)
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
    store.subscribe(metrics.note)
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
