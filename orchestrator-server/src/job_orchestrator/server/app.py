"""Composition root: creates the components of the server, connects them, starts and stops them."""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from aiohttp import web

from job_orchestrator.common.errors import StartupError
from job_orchestrator.common.messages.encoding import encode
from job_orchestrator.common.runtime.clock import steady_time
from job_orchestrator.common.runtime.lifecycle import Component, Lifecycle
from job_orchestrator.common.runtime.loops import Loop
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.storage.form_writer import FormLimits
from job_orchestrator.common.telemetry import LoopLag
from job_orchestrator.common.web.bodies import MAX_BODY_BYTES, bounded_bodies
from job_orchestrator.common.web.errors import error_middleware
from job_orchestrator.common.web.foreign_pages import PagePolicy, refuse_foreign_pages
from job_orchestrator.common.web.openapi import Api, document_routes
from job_orchestrator.common.web.request_log import add_request_ids
from job_orchestrator.server import __version__, keys
from job_orchestrator.server.auth.authentication import Authentication, ClaimNames
from job_orchestrator.server.auth.sign_in import SignInClient
from job_orchestrator.server.auth.tokens import Tokens
from job_orchestrator.server.callbacks.delivery import WebhookSender
from job_orchestrator.server.callbacks.notifier import Notifier
from job_orchestrator.server.clients.agreement import ServerLimits
from job_orchestrator.server.clients.connector import TunnelConnector
from job_orchestrator.server.clients.link import LinkTerms, LinkTransport, link_transports
from job_orchestrator.server.clients.registrations import (
    SEEN_INTERVAL_S,
    Attendance,
    ClientRegistrations,
)
from job_orchestrator.server.clients.registry import ClientRegistry
from job_orchestrator.server.dispatch.assembly import Dispatch
from job_orchestrator.server.errors import STATUSES
from job_orchestrator.server.files.base import JobFiles
from job_orchestrator.server.files.folder import FolderFiles
from job_orchestrator.server.jobs.changes import ChangeFeed
from job_orchestrator.server.jobs.control import QueueControl
from job_orchestrator.server.jobs.event_streams import EventStreams
from job_orchestrator.server.jobs.logs import JobLogs
from job_orchestrator.server.jobs.queries import JobQueries
from job_orchestrator.server.jobs.results import JobResults
from job_orchestrator.server.jobs.statistics import JOBS_READ_AT_START, JobStatistics
from job_orchestrator.server.jobs.stored_files import StoredFiles
from job_orchestrator.server.jobs.submit import JobSubmission
from job_orchestrator.server.jobs.terminate import JobTermination
from job_orchestrator.server.jobs.views import view_of
from job_orchestrator.server.jobs.waiting.explanation import Explanations
from job_orchestrator.server.jobs.waiting.forecasts import Forecasts
from job_orchestrator.server.jobs.waiting.hindrances import Hindrances
from job_orchestrator.server.jobs.waiting.outlook import Outlooks
from job_orchestrator.server.maintenance.health import HealthCheck
from job_orchestrator.server.maintenance.retention import Retention
from job_orchestrator.server.model import ClientUrls, UserLimits
from job_orchestrator.server.scheduling.offers import Offers
from job_orchestrator.server.scheduling.policy_reloader import PolicyReloader
from job_orchestrator.server.scheduling.rules import Rules, SharedLimits, policies
from job_orchestrator.server.settings.server import Settings
from job_orchestrator.server.settings.startup_summary import summary
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.store.sqlite.store import open_store
from job_orchestrator.server.telemetry.metrics import PREFIX, Metrics
from job_orchestrator.server.tuning import Tuning
from job_orchestrator.server.web.access import access, is_open
from job_orchestrator.server.web.answers import (
    SCHEMAS,
    error_body,
    message_for,
    name_job_of_errors,
)
from job_orchestrator.server.web.cors import allow_origins
from job_orchestrator.server.web.dashboard import Dashboard
from job_orchestrator.server.web.long_polls import LONG_POLLS, LongPolls
from job_orchestrator.server.web.results import results_response
from job_orchestrator.server.web.routes import OPERATIONS, ROUTES, TAGS

logger = logging.getLogger(__name__)

DEFAULT_TUNING = Tuning()
TUNING = web.AppKey("tuning", Tuning)
DISPATCH = web.AppKey("dispatch", Dispatch)
LIFECYCLE = web.AppKey("lifecycle", Lifecycle)


def create_app(settings: Settings, tuning: Tuning = DEFAULT_TUNING) -> web.Application:
    """Build the server's application. Database, files and connections are opened when it runs."""
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    add_request_ids(app)
    allow_origins(app, settings.cors_origins)
    app.middlewares.extend(
        [
            error_middleware(STATUSES, error_body, message_for),
            refuse_foreign_pages(_page_policy(settings)),
            bounded_bodies("/upload"),
            access,
            name_job_of_errors,
        ]
    )
    app[keys.SETTINGS] = settings
    app[TUNING] = tuning
    app[keys.METRICS] = Metrics(settings.services.values())
    app[keys.AUTHENTICATION] = Authentication(
        Tokens(settings.api_tokens_file, fresh_s=tuning.tokens_fresh_s),
        names=ClaimNames(
            settings.oidc_name_claim, settings.oidc_groups_claim, settings.oidc_admin_groups
        ),
        client=SignInClient(
            settings.oidc_client_id, settings.oidc_client_secret, settings.oidc_scope
        ),
    )
    document_routes(
        app,
        ROUTES,
        Api(
            title="jo-server",
            version=__version__,
            description="Submit jobs, follow them, fetch their results.",
            operations=OPERATIONS,
            tags=TAGS,
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


def _page_policy(settings: Settings) -> PagePolicy:
    return PagePolicy(
        service="jo-server",
        hosts=settings.allowed_hosts,
        address=settings.host,
        token_setting="API_TOKENS_FILE",  # noqa: S106 (a name)
        has_tokens=settings.requires_tokens,
        origins=settings.cors_origins,
    )


async def _resources(app: web.Application) -> AsyncIterator[None]:
    """Open the data folder, the database and the connections to the clients, then compose."""
    settings, tuning = app[keys.SETTINGS], app[TUNING]
    await app[keys.AUTHENTICATION].tokens.start()
    files = FolderFiles(settings.data_path)
    await in_thread(files.prepare)
    with files.locked():
        await in_thread(files.remove_unfinished_uploads)
        async with (
            open_store(
                settings.db_path,
                wrote=app[keys.METRICS].write_seconds.observe,
                half_life_s=settings.fair_half_life_s,
            ) as store,
            _trusting_issuers(app, store),
        ):
            await _continue_clock(store)
            terms = LinkTerms(store.installation.id, settings.inline_limit)
            transports = link_transports(
                settings.services.values(), settings.client_token, terms, tuning
            )
            times = [service.lost_after_s or 0.0 for service in settings.services.values()]
            limits = ServerLimits(
                settings.max_upload_bytes,
                settings.max_result_bytes,
                max(settings.lost_after_s, *times, 0.0),
            )
            registry = ClientRegistry(transports, tuning.client_backoff, time.monotonic, limits)
            webhooks = WebhookSender(settings.callback_rules, settings.callback_key, time.time)
            try:
                await _compose(app, files, store, registry, webhooks)
                yield
            finally:
                await webhooks.close()
                await registry.close()


@asynccontextmanager
async def _trusting_issuers(app: web.Application, store: JobStore) -> AsyncIterator[None]:
    """Accept the tokens of the configured issuers during the block. Raises ``StartupError``."""
    settings = app[keys.SETTINGS]
    if not settings.oidc_issuers:
        yield
        return
    try:
        # Needs joserfc and cryptography, which servers without issuers need not install.
        from job_orchestrator.server.auth.issuer import open_issuers
    except ImportError as error:
        raise StartupError(
            f"OIDC_ISSUERS is set, and {error.name} is not installed: pip install"
            " 'job-orchestrator-server[oidc]'"
        ) from error
    async with open_issuers(settings.oidc_issuers, settings.oidc_audience) as issuers:
        await app[keys.AUTHENTICATION].trust(issuers, store.identities)
        yield


async def _continue_clock(store: JobStore) -> None:
    """Let the clock go on from the last record: it may have been set back since the last stop."""
    last = await store.events.last_id()
    for event in await store.events.between(last - 1, last):
        steady_time.continue_after(event.at)


async def _compose(
    app: web.Application,
    files: JobFiles,
    store: JobStore,
    registry: ClientRegistry,
    webhooks: WebhookSender,
) -> None:
    """Create the components and connect them."""
    settings, tuning, metrics = app[keys.SETTINGS], app[TUNING], app[keys.METRICS]
    statistics = JobStatistics()
    statistics.restore(await store.lists.latest(JOBS_READ_AT_START))
    stored_files = StoredFiles(store, files, settings.inline_limit)
    rules = Rules(
        policies(settings.priority_ageing_s),
        statistics.mean_run_s,
        SharedLimits(
            settings.max_runs_per_user,
            settings.total_max_runs,
            settings.borrow_reserve,
            settings.rate,
            refuse=settings.refuse_beyond_rate,
            max_priority=settings.max_priority,
        ),
    )
    policy_file = None
    if settings.policy_file is not None:
        policy_file = PolicyReloader(
            settings.policy_file, rules, app[keys.AUTHENTICATION].groups.members
        )
        await policy_file.start()
    offers = Offers(registry, rules, settings.services, settings.fair_half_life_s, steady_time)
    dispatch = Dispatch(
        store,
        stored_files,
        registry,
        rules,
        offers,
        settings.services,
        tuning,
        metrics.fetch_seconds,
        lost_after_s=settings.lost_after_s,
        max_result_bytes=settings.max_result_bytes,
        max_input_bytes=settings.max_upload_bytes,
    )
    await dispatch.load()
    registrations = await _registrations(app, store, registry, dispatch)
    control = QueueControl(store, settings.services, rules, dispatch.dispatcher.loop.wake)
    await control.load()
    feed = ChangeFeed()
    forecasts = Forecasts(metrics.count_forecast)
    hindrances = Hindrances(registry, settings.services, rules)
    outlooks = Outlooks(store, hindrances, statistics, forecasts)
    queries = JobQueries(store, feed, registry, settings.services, statistics, outlooks)
    event_streams = EventStreams(store.events, queries)
    notifier = None
    if settings.callback_rules.patterns:
        notifier = Notifier(store.outbox, webhooks, lambda job: encode(view_of(job, details=False)))

    # Subscribers are notified in this order, which matters: the registry comes first, because the
    # others start work that asks it which client has a job. The dispatcher comes after the waiting
    # requests and streams, so that the end of a job is reported before its slot is used again.
    store.subscribe(registry.on_job_changed)
    store.subscribe(dispatch.collector.on_job_changed)
    store.subscribe(feed.publish)
    store.subscribe(event_streams.on_job_changed)
    store.subscribe(dispatch.dispatcher.on_job_changed)
    if notifier is not None:
        store.subscribe(notifier.on_job_changed)
    store.subscribe(forecasts.on_job_changed, status_changes_only=True)
    store.subscribe(statistics.on_job_changed, status_changes_only=True)
    store.subscribe(metrics.on_job_changed, status_changes_only=True)

    components = [
        _retention(store, files, settings, tuning),
        *dispatch.components(),
        Component(event_streams.loops),
        _loop_lag(metrics, tuning),
        Component([Loop("registrations", registrations.run_pass, interval_s=SEEN_INTERVAL_S)]),
    ]
    if notifier is not None:
        components.append(Component([notifier.loop], close=notifier.close))
    if policy_file is not None:
        loop = Loop("policy file", policy_file.run_pass, interval_s=tuning.policy_interval_s)
        components.append(Component([loop]))
    if settings.api_tokens_file is not None:
        components.append(_token_reloading(app[keys.AUTHENTICATION].tokens, tuning))
    lifecycle = Lifecycle(components)

    app[keys.CLIENTS] = registry
    app[keys.REGISTRATIONS] = registrations
    app[keys.CONTROL] = control
    app[keys.EXPLANATIONS] = Explanations(outlooks, offers)
    app[keys.FEED] = feed
    app[keys.HEALTH] = HealthCheck(store, files, lifecycle.loops)
    app[keys.QUERIES] = queries
    app[LONG_POLLS] = LongPolls(queries.wait_for_end, results_response)
    app[keys.EVENT_STREAMS] = event_streams
    app[keys.JOB_LOGS] = JobLogs(store, stored_files, feed, registry)
    app[keys.RESULTS] = JobResults(stored_files, registry)
    app[keys.SUBMISSION] = JobSubmission(
        store=store,
        files=files,
        inline_bytes=settings.inline_limit,
        services=settings.services,
        callback_rules=settings.callback_rules,
        user_limits=UserLimits(settings.max_queued_per_user, settings.max_stored_per_user),
        rules=rules,
        form_limits=FormLimits(settings.max_upload_bytes, min_rate=settings.min_upload_rate),
        before_creation=dispatch.dispatcher.before_creation,
        max_upload_bytes=registry.max_upload_bytes,
        offers=registry.offers,
    )
    app[keys.TERMINATION] = JobTermination(
        store, feed, registry, follow_up=dispatch.collector.fetch
    )
    app[DISPATCH] = dispatch
    app[LIFECYCLE] = lifecycle


async def _registrations(
    app: web.Application, store: JobStore, registry: ClientRegistry, dispatch: Dispatch
) -> ClientRegistrations:
    """Load the clients that have registered themselves with a previous run of the server."""
    settings, tuning = app[keys.SETTINGS], app[TUNING]
    terms = LinkTerms(store.installation.id, settings.inline_limit)

    def new_transport(urls: ClientUrls, connector: TunnelConnector) -> LinkTransport:
        return LinkTransport(urls, connector, terms, tuning)

    registrations = ClientRegistrations(
        registry,
        store.registrations,
        settings.services,
        new_transport,
        Attendance(dispatch.attend, dispatch.leave),
        forget_after_s=settings.forget_clients_after_s,
        now=steady_time,
    )
    await registrations.load()
    if settings.api_tokens_file is not None:
        await store.registrations.keep_tokens(app[keys.AUTHENTICATION].tokens.known)
    return registrations


def _retention(store: JobStore, files: JobFiles, settings: Settings, tuning: Tuning) -> Component:
    retention = Retention(store, files, max_age_s=settings.max_age_s)
    loop = Loop("retention", retention.run_pass, interval_s=tuning.retention_interval_s)
    return Component([loop], prepare=retention.remove_orphans)


def _loop_lag(metrics: Metrics, tuning: Tuning) -> Component:
    lag = LoopLag(PREFIX, metrics.registry)
    return Component([Loop("loop lag", lag.run_pass, interval_s=tuning.loop_lag_interval_s)])


def _token_reloading(tokens: Tokens, tuning: Tuning) -> Component:
    return Component([Loop("tokens", tokens.run_pass, interval_s=tuning.tokens_interval_s)])


async def _start(app: web.Application) -> None:
    if not app[keys.SETTINGS].requires_tokens:
        logger.warning(
            "API_TOKENS_FILE is not set: everybody who reaches this port can submit jobs, and see, "
            "fetch and terminate the jobs of all users"
        )
    for line in app[keys.SETTINGS].warnings:
        logger.warning("%s", line)
    for line in summary(app[keys.SETTINGS]):
        logger.info("%s", line)
    await app[LIFECYCLE].start()


def end_streams(app: web.Application) -> None:
    """End the requests that wait for jobs or follow them, so that the server can stop."""
    app[keys.FEED].close()
    app[keys.EVENT_STREAMS].close()
    app[keys.JOB_LOGS].close()
    app[keys.REGISTRATIONS].close()


async def _stop(app: web.Application) -> None:
    end_streams(app)
    await app[DISPATCH].leave_all()
    await app[LIFECYCLE].stop()
