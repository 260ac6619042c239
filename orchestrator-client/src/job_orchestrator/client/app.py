"""Composition root: the components of the client, and the order in which they start and stop."""

import logging
from collections.abc import AsyncIterator

from aiohttp import web

from job_orchestrator.client import __version__, keys
from job_orchestrator.client.errors import STATUSES
from job_orchestrator.client.executors.base import Executor, RunId
from job_orchestrator.client.executors.machine import Machine, cluster, find_machine
from job_orchestrator.client.executors.opening import open_executor
from job_orchestrator.client.link.connection import LinkServer
from job_orchestrator.client.link.requests import LinkRequests
from job_orchestrator.client.payloads.drain import Drain
from job_orchestrator.client.payloads.events import EventHub
from job_orchestrator.client.payloads.fitness import Fitness
from job_orchestrator.client.payloads.ids import PayloadIds
from job_orchestrator.client.payloads.intake import Intake
from job_orchestrator.client.payloads.keyless import KeylessPayloads
from job_orchestrator.client.payloads.load import LoadMeter
from job_orchestrator.client.payloads.orphaned_folders import OrphanedFolders
from job_orchestrator.client.payloads.output import ScriptOutput
from job_orchestrator.client.payloads.records import PayloadRecords
from job_orchestrator.client.payloads.retention import Retention
from job_orchestrator.client.payloads.runner import Runner
from job_orchestrator.client.payloads.store import PayloadStore, open_payloads
from job_orchestrator.client.results.kept import KeptResults
from job_orchestrator.client.results.packer import Packer
from job_orchestrator.client.results.partial import PartialResults
from job_orchestrator.client.settings import Settings
from job_orchestrator.client.telemetry.health import HealthCheck
from job_orchestrator.client.telemetry.metrics import PREFIX, Metrics
from job_orchestrator.client.telemetry.startup_summary import summary
from job_orchestrator.client.web.answers import SCHEMAS, error_body
from job_orchestrator.client.web.guard import is_open, server_only
from job_orchestrator.client.web.routes import OPERATIONS, ROUTES, TAGS
from job_orchestrator.client.workspace.deferred_removal import DeferredRemoval
from job_orchestrator.client.workspace.layout import Workspaces
from job_orchestrator.common.messages.payloads import ClientLimits
from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.runtime.lifecycle import Component, Lifecycle
from job_orchestrator.common.runtime.loops import Loop
from job_orchestrator.common.runtime.threads import in_thread, start_threads
from job_orchestrator.common.status import PayloadStatus
from job_orchestrator.common.storage.form_writer import FormLimits
from job_orchestrator.common.telemetry import LoopLag
from job_orchestrator.common.web.bodies import MAX_BODY_BYTES, bounded_bodies
from job_orchestrator.common.web.errors import error_middleware
from job_orchestrator.common.web.foreign_pages import PagePolicy, refuse_foreign_pages
from job_orchestrator.common.web.openapi import Api, document_routes
from job_orchestrator.common.web.request_log import add_request_ids

logger = logging.getLogger(__name__)

LAG_INTERVAL_S = 2.0

WORKER_THREADS = 20
"""Threads for short work with files and processes, which waits for nothing but the disk.

Results are packed in threads of their own.

All are started at the beginning: when scripts have used up the machine's processes, no thread can
be started, and the client must still be able to end scripts.
"""

DEFERRED_REMOVALS = web.AppKey("deferred_removals", list[DeferredRemoval])
LIFECYCLE = web.AppKey("lifecycle", Lifecycle)


def create_app(settings: Settings) -> web.Application:
    """Build the client's application. Files and databases are opened when it is run."""
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    add_request_ids(app)
    app.middlewares.extend(
        [
            error_middleware(STATUSES, error_body),
            refuse_foreign_pages(_page_policy(settings)),
            bounded_bodies("/submit"),
            # The only peer of a registered client is the server that it has dialed.
            server_only(None if settings.registration.server_url else settings.client_token),
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
            operations=OPERATIONS,
            tags=TAGS,
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


def _page_policy(settings: Settings) -> PagePolicy:
    return PagePolicy(
        service="jo-client",
        hosts=settings.allowed_hosts,
        address=settings.host,
        token_setting="CLIENT_TOKEN",  # noqa: S106 (a name)
        has_tokens=settings.client_token is not None,
    )


async def _resources(app: web.Application) -> AsyncIterator[None]:
    """Lock the data folder, open the executor, and take over or remove what was left."""
    start_threads(WORKER_THREADS)
    settings = app[keys.SETTINGS]
    workspaces = Workspaces(settings.data_path)
    await in_thread(workspaces.prepare)
    find = cluster if settings.batch.is_used else find_machine
    machine = await in_thread(find, settings.cpus, settings.memory_bytes, settings.gpus)
    large_leftovers = DeferredRemoval("large leftovers")
    with workspaces.locked():
        async with open_executor(
            settings.batch,
            settings.execution,
            settings.script_environment,
            settings.command_environment,
            workspaces,
            kill_grace_s=settings.kill_grace_s,
            large_leftovers=large_leftovers,
        ) as executor:
            records = PayloadRecords(workspaces) if executor.survives_restart else None
            payloads = await in_thread(records.load) if records is not None else ()
            await executor.recover([RunId(p.uuid) for p in payloads if not p.status.has_ended])
            reach(Point.CLIENT_CLEARING)
            for left in await in_thread(workspaces.clear, {p.uuid for p in payloads}):
                large_leftovers.retry_later(left)
            await executor.verify()
            keyless = KeylessPayloads(settings.data_path / "without-key")
            async with open_payloads() as store:
                await store.restore([p.taken_over() for p in payloads])
                for lost in await in_thread(keyless.load):
                    message = "The client was restarted; submit the job again"
                    await store.add_ended(lost, None, PayloadStatus.FAILED, message)
                _compose(
                    app, workspaces, executor, store, keyless, records, machine, large_leftovers
                )
                yield


def _compose(
    app: web.Application,
    workspaces: Workspaces,
    executor: Executor,
    store: PayloadStore,
    keyless: KeylessPayloads,
    records: PayloadRecords | None,
    machine: Machine,
    large_leftovers: DeferredRemoval,
) -> None:
    """Create the components and connect them."""
    settings = app[keys.SETTINGS]
    metrics = app[keys.METRICS]
    hub = EventHub()
    kept = KeptResults()
    # Results in memory do not survive a restart.
    packer = Packer(settings.max_result_bytes, kept=kept if records is None else None)
    limits = ClientLimits(settings.max_upload_bytes, settings.max_result_bytes, settings.max_age_s)
    meter = LoadMeter(
        store,
        settings.slots,
        hub.publish_load,
        machine=machine,
        limits=limits,
        warnings=settings.execution.warnings,
        measures_machine=not settings.batch.is_used,
    )
    fitness = Fitness(executor.self_test, meter.announce_problem)
    runner = Runner(
        store,
        workspaces,
        executor,
        packer,
        fitness=fitness,
        slots=settings.slots,
        machine=machine,
        records=records,
    )
    intake = Intake(
        store,
        workspaces,
        PayloadIds(settings.data_path / "next-id"),
        keyless,
        FormLimits(settings.max_upload_bytes, min_rate=settings.min_upload_rate),
        fitness,
        machine.offer,
        records,
    )
    output = ScriptOutput(store, workspaces)
    retention = Retention(store, workspaces, kept, max_age_s=settings.max_age_s)
    orphaned = OrphanedFolders(store, workspaces, intake.arriving, retention.large)
    requests = LinkRequests(intake, runner, store, retention)
    lag = LoopLag(PREFIX, metrics.registry)
    lifecycle = Lifecycle(
        [
            Component(close=requests.close),
            Component(runner.loops, close=runner.stop),
            Component(executor.loops),
            Component([fitness.loop]),
            Component([Loop("loop lag", lag.run_pass, interval_s=LAG_INTERVAL_S)]),
            # The first request for the load must find a reading.
            Component([meter.loop], prepare=meter.run_pass),
            Component(retention.loops),
            Component([large_leftovers.loop]),
            Component([orphaned.loop]),
        ]
    )

    # The order does not matter: no subscriber waits, or depends on what another one did.
    store.subscribe(hub.on_payload_changed)
    store.subscribe(runner.on_payload_changed)
    store.subscribe(output.on_payload_changed)
    store.subscribe(metrics.on_payload_changed)

    app[keys.STORE] = store
    app[keys.WORKSPACES] = workspaces
    app[keys.INTAKE] = intake
    app[keys.RUNNER] = runner
    app[keys.SCRIPT_OUTPUT] = output
    app[keys.KEPT_RESULTS] = kept
    app[keys.PARTIAL_RESULTS] = PartialResults(packer)
    app[keys.RETENTION] = retention
    app[keys.EVENTS] = hub
    app[keys.LINKS] = LinkServer(hub, requests, kept.get)
    app[keys.LOAD] = meter
    app[keys.DRAIN] = Drain(
        store,
        intake,
        runner,
        meter,
        hub,
        settings.drain_timeout_s,
        executor.survives_restart,
    )
    app[keys.HEALTH] = HealthCheck(
        workspaces,
        (fitness.describe, lambda: packer.problem, lambda: executor.problem),
        lifecycle.loops,
    )
    app[DEFERRED_REMOVALS] = [retention.large, large_leftovers]
    app[LIFECYCLE] = lifecycle


async def _start(app: web.Application) -> None:
    settings = app[keys.SETTINGS]
    if settings.client_token is None and settings.registration.server_url is None:
        logger.warning(
            "CLIENT_TOKEN is not set: anybody who can reach this port can run programs here"
        )
    for line in (*settings.warnings, *settings.execution.warnings):
        logger.warning("%s", line)
    for line in summary(settings):
        logger.info("%s", line)
    await app[LIFECYCLE].start()


def end_streams(app: web.Application) -> None:
    """End the streams, so that the client can stop."""
    app[keys.EVENTS].close()
    app[keys.SCRIPT_OUTPUT].close()


async def _stop(app: web.Application) -> None:
    # Streams are closed first: servers must not take a script that is ended below for one that
    # ended by itself.
    end_streams(app)
    # A large removal would use up the time that its loop has to stop.
    for removal in app[DEFERRED_REMOVALS]:
        removal.stop()
    await app[LIFECYCLE].stop()
