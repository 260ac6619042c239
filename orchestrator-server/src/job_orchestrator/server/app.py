"""The composition root: what the server consists of, and in which order it starts and stops."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable
from functools import partial

from aiohttp import web

from job_orchestrator.common.messages import encode
from job_orchestrator.common.protocol.multipart_reader import FormLimits
from job_orchestrator.common.runtime.loops import Loop
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.status import FINAL_JOB, JobStatus
from job_orchestrator.common.web.bodies import MAX_BODY_BYTES, bounded_bodies, plain_bodies
from job_orchestrator.common.web.errors import error_middleware
from job_orchestrator.common.web.metrics import LoopLag
from job_orchestrator.common.web.openapi import Api, document_routes
from job_orchestrator.common.web.request_ids import add_request_ids
from job_orchestrator.server import __version__, keys
from job_orchestrator.server.auth.tokens import Tokens
from job_orchestrator.server.callbacks.delivery import WebhookCaller
from job_orchestrator.server.callbacks.notifier import Notifier
from job_orchestrator.server.clients.registry import ClientPool
from job_orchestrator.server.dispatch.abandoned import Strays
from job_orchestrator.server.dispatch.acknowledger import Discarder
from job_orchestrator.server.dispatch.collector import Getter
from job_orchestrator.server.dispatch.dispatcher import Sender
from job_orchestrator.server.dispatch.watcher import Watcher
from job_orchestrator.server.errors import STATUSES
from job_orchestrator.server.files.folder import JobFiles
from job_orchestrator.server.jobs.changes import ChangeFeed
from job_orchestrator.server.jobs.event_streams import Journal
from job_orchestrator.server.jobs.job_view import view_of
from job_orchestrator.server.jobs.logs import JobLogs
from job_orchestrator.server.jobs.queries import Overview
from job_orchestrator.server.jobs.small_results import SmallResults
from job_orchestrator.server.jobs.statistics import SEEN_AT_START, Recent
from job_orchestrator.server.jobs.submit import Submission
from job_orchestrator.server.maintenance.retention import Cleaner
from job_orchestrator.server.model import Job, UserLimits
from job_orchestrator.server.settings.server import Settings
from job_orchestrator.server.store.sqlite.jobs import JobStore
from job_orchestrator.server.store.sqlite.opening import open_store
from job_orchestrator.server.telemetry.health import HealthCheck
from job_orchestrator.server.telemetry.metrics import PREFIX, Metrics
from job_orchestrator.server.telemetry.startup_summary import summary
from job_orchestrator.server.web.access import access, is_open
from job_orchestrator.server.web.answers import SCHEMAS, error_body
from job_orchestrator.server.web.cors import allow_origins
from job_orchestrator.server.web.dashboard import Dashboard
from job_orchestrator.server.web.routes import ROUTES

logger = logging.getLogger(__name__)

SENDER_INTERVAL_S = 0.5
GETTER_INTERVAL_S = 0.5
CLEANER_INTERVAL_S = 60.0
DISCARDER_INTERVAL_S = 1.0
STRAYS_INTERVAL_S = 5.0
TOKENS_INTERVAL_S = 1.0
RECONNECT_S = 1.0
LAG_INTERVAL_S = 2.0


class Background:
    """Everything that the server does by itself, and how it is started and stopped."""

    def __init__(
        self,
        sender: Sender,
        getter: Getter,
        cleaner: Cleaner,
        discarders: Iterable[Discarder],
        strays: Iterable[Strays],
        watchers: Iterable[Watcher],
        notifier: Notifier | None,
        tokens: Tokens,
        more: Iterable[Loop],
    ) -> None:
        self._sender = sender
        self._getter = getter
        self._cleaner = cleaner
        self._notifier = notifier
        self._sender_loop = Loop("sender", sender.run_pass, interval_s=SENDER_INTERVAL_S)
        self._loops = [
            self._sender_loop,
            Loop("getter", getter.run_pass, interval_s=GETTER_INTERVAL_S),
            Loop("cleaner", cleaner.run_pass, interval_s=CLEANER_INTERVAL_S),
            *more,
            *(
                Loop(f"discarder {number}", discarder.run_pass, interval_s=DISCARDER_INTERVAL_S)
                for number, discarder in enumerate(discarders, start=1)
            ),
            *(
                Loop(f"strays {number}", each.run_pass, interval_s=STRAYS_INTERVAL_S)
                for number, each in enumerate(strays, start=1)
            ),
        ]
        if notifier is not None:
            self._loops.append(notifier.loop)
        if tokens.path is not None:
            self._loops.append(Loop("tokens", tokens.run_pass, interval_s=TOKENS_INTERVAL_S))
        self._watcher_loops = [
            Loop(f"watcher {number}", watcher.run_pass, interval_s=RECONNECT_S)
            for number, watcher in enumerate(watchers, start=1)
        ]

    @property
    def loops(self) -> list[Loop]:
        """All loops, for the health report."""
        return self._loops + self._watcher_loops

    def note(self, job: Job) -> None:
        """Wake the sender for a job that was queued, and for a slot that became free."""
        if job.status is JobStatus.QUEUED or job.status in FINAL_JOB:
            self._sender_loop.wake()

    async def start(self) -> None:
        """Start all loops."""
        await self._cleaner.remove_orphans()
        await self._getter.recover()
        for loop in self.loops:
            loop.start()

    async def stop(self) -> None:
        """Stop all loops and tasks. What they leave half done the next life takes up."""
        passes = [loop.stop() for loop in self._loops]
        streams = [loop.stop(grace_s=0.0) for loop in self._watcher_loops]
        await asyncio.gather(*passes, *streams)
        await self._sender.close()
        await self._getter.close()
        if self._notifier is not None:
            await self._notifier.close()


BACKGROUND = web.AppKey("background", Background)


def create_app(settings: Settings) -> web.Application:
    """Build the server's application. What it needs is opened when it is run."""
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    add_request_ids(app)
    allow_origins(app, settings.cors_origins)
    app.middlewares.extend(
        [error_middleware(STATUSES, error_body), bounded_bodies("/upload"), plain_bodies, access]
    )
    app[keys.SETTINGS] = settings
    app[keys.METRICS] = Metrics(settings.services.values())
    app[keys.TOKENS] = Tokens(settings.api_tokens_file)
    document_routes(
        app,
        ROUTES,
        Api(
            title="jo-server",
            version=__version__,
            description="Submit jobs, follow them, fetch their results.",
            schemas=SCHEMAS,
            error="JobAnswer",
            error_body=error_body,
            is_open=partial(is_open, metrics_open=settings.metrics_open),
        ),
    )
    app.router.add_routes(Dashboard().routes())
    app.cleanup_ctx.append(_resources)
    app.on_startup.append(_start)
    app.on_shutdown.append(_stop)
    return app


async def _resources(app: web.Application) -> AsyncIterator[None]:
    """Open the database, the data folder and the connections to the clients."""
    settings = app[keys.SETTINGS]
    await app[keys.TOKENS].start()
    files = JobFiles(settings.data_path)
    await in_thread(files.prepare)
    with files.locked():
        await in_thread(files.drop_incoming)
        async with open_store(
            settings.db_path, wrote=app[keys.METRICS].write_seconds.observe
        ) as store:
            pool = ClientPool(settings.services, time.monotonic, settings.client_token)
            caller = WebhookCaller(settings.callback_rules, settings.callback_key, time.time)
            try:
                await _compose(app, files, store, pool, caller)
                yield
            finally:
                await caller.close()
                await pool.close()


async def _compose(
    app: web.Application,
    files: JobFiles,
    store: JobStore,
    pool: ClientPool,
    caller: WebhookCaller,
) -> None:
    """Wire the parts together. Whoever has to know of a changed job is a listener of the store."""
    settings = app[keys.SETTINGS]
    feed = ChangeFeed()
    metrics = app[keys.METRICS]
    getter = Getter(
        store,
        files,
        pool,
        settings.services,
        lost_after_s=settings.lost_after_s,
        max_result_bytes=settings.max_result_bytes,
        fetched=metrics.fetch_seconds.observe,
    )
    sender = Sender(
        store,
        files,
        pool,
        settings.services,
        lost_after_s=settings.lost_after_s,
        submitted=getter.submitted,
    )
    cleaner = Cleaner(store, files, max_age_s=settings.max_age_s)
    notifier = None
    if settings.callback_rules.patterns:
        notifier = Notifier(store.outbox, caller, lambda job: encode(view_of(job)))
        store.subscribe(notifier.note)
    recent = Recent()
    recent.adopt(await store.lists.latest(SEEN_AT_START))
    overview = Overview(store, pool, settings.services, recent)
    journal = Journal(store.events, overview)
    lag = LoopLag(PREFIX, metrics.registry)
    lag_loop = Loop("loop lag", lag.run_pass, interval_s=LAG_INTERVAL_S)
    strays = {client.url: Strays(client, store) for client in pool}
    background = Background(
        sender,
        getter,
        cleaner,
        [Discarder(client) for client in pool],
        strays.values(),
        [Watcher(client, pool, getter, strays[client.url]) for client in pool],
        notifier,
        app[keys.TOKENS],
        [*journal.loops, lag_loop],
    )
    for client in pool:
        pool.adopt(await store.active(client.url))
        await strays[client.url].load()
    for listener in (pool.track, getter.track, feed.publish, journal.note, background.note):
        store.subscribe(listener)
    for listener in (recent.note, metrics.on_job_changed):
        store.subscribe_to_states(listener)
    app[keys.FEED] = feed
    app[keys.HEALTH] = HealthCheck(store, files, background.loops)
    app[keys.OVERVIEW] = overview
    app[keys.JOURNAL] = journal
    app[keys.JOB_LOGS] = JobLogs(store, files, feed, pool)
    app[keys.SUBMISSION] = Submission(
        store=store,
        files=files,
        small_results=SmallResults(files),
        feed=feed,
        pool=pool,
        services=settings.services,
        callback_rules=settings.callback_rules,
        user_limits=UserLimits(settings.max_queued_per_user, settings.max_stored_per_user),
        limits=FormLimits(settings.max_upload_bytes, min_rate=settings.min_upload_rate),
        follow_up=getter.follow_up,
    )
    app[BACKGROUND] = background


async def _start(app: web.Application) -> None:
    if app[keys.TOKENS].path is None:
        logger.warning(
            "API_TOKENS_FILE is not set: whoever reaches this port can submit jobs, and see, fetch "
            "and end those of everybody"
        )
    for line in app[keys.SETTINGS].warnings:
        logger.warning("%s", line)
    for line in summary(app[keys.SETTINGS]):
        logger.info("%s", line)
    await app[BACKGROUND].start()


async def _stop(app: web.Application) -> None:
    # First those who wait for jobs or follow them: their requests end, so that the server can.
    app[keys.FEED].close()
    app[keys.JOURNAL].close()
    app[keys.JOB_LOGS].close()
    await app[BACKGROUND].stop()
