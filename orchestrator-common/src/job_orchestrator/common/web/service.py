"""Runs a service until SIGTERM or SIGINT, and drains it before it stops."""

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Protocol

from aiohttp import web, web_response

from job_orchestrator.common.errors import DomainError
from job_orchestrator.common.runtime.process_tuning import release_free_memory, retain_freed_buffers
from job_orchestrator.common.web.listener import Listener, listen, report_exhaustion
from job_orchestrator.common.web.request_log import AccessLog
from job_orchestrator.common.web.shutdown import RequestsInProgress, StopSignals, end_process_after

logger = logging.getLogger(__name__)

Drain = Callable[[], Awaitable[None]]

SHUTDOWN_GRACE_S = 10.0
CANCELLATION_S = 1.0
"""Time that aiohttp gives a request to end, after the grace and once more after cancelling it."""

KEEP_ALIVE_S = 75.0
# Also the part of a body that may arrive unread: enough for a block of the parser.
READ_BUFFER_BYTES = 1 << 20

NO_PAGES: Mapping[str, str] = {}


class Entrance(Protocol):
    """Way by which connections reach a service: a port, or what the service dials itself."""

    @property
    def connections(self) -> int:
        """Number of connections that are open."""

    async def open(self, runner: web.AppRunner) -> None:
        """Let connections in from now on."""

    async def wait(self) -> None:
        """Return when the service has to stop by itself; a port never returns.

        Raises a ``DomainError`` if the service can't go on.
        """

    async def close(self) -> None:
        """Let no further connections in."""

    async def leave(self) -> None:
        """End what is left, when all requests have ended."""


class Port:
    """Entrance through a listening socket. ``announce`` is called when it listens."""

    def __init__(self, listener: Listener, announce: Callable[[], None]) -> None:
        self._listener = listener
        self._announce = announce
        self._site: web.SockSite | None = None

    @property
    def connections(self) -> int:
        """See ``Entrance.connections``."""
        return self._listener.connections

    async def open(self, runner: web.AppRunner) -> None:
        """See ``Entrance.open``."""
        self._site = web.SockSite(runner, self._listener)
        await self._site.start()
        self._announce()

    async def wait(self) -> None:
        """See ``Entrance.wait``."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """See ``Entrance.close``."""
        if self._site is not None:
            await self._site.stop()

    async def leave(self) -> None:
        """See ``Entrance.leave``: the socket is closed already."""


async def nothing_to_drain() -> None:
    """Do nothing: the drain of a service that has no work to end before it stops."""


def run_service(
    name: str,
    version: str,
    app: web.Application,
    host: str,
    port: int,
    *,
    max_per_peer: int = 0,
    end_streams: Callable[[], None],
    drain: Drain = nothing_to_drain,
    stop_limit_s: float | None = None,
    pages: Mapping[str, str] = NO_PAGES,
    entrance: Entrance | None = None,
) -> None:
    """Serve ``app`` until SIGTERM or SIGINT. Blocks.

    With an ``entrance`` the service listens on no port, and stops when the entrance says so.

    Port 0 selects a free port. ``max_per_peer`` limits the connections from one address, 0: any
    number. When connections are accepted, a log record with the URL is written, then one for each
    of ``pages`` (paths by name) that browsers can open.

    On a signal, ``drain`` runs while requests are served as before. Then the listening socket is
    closed, ``end_streams`` ends the requests that would not end by themselves, and the others get
    ``SHUTDOWN_GRACE_S``. After that the app is shut down and cleaned up. A further signal ends the
    drain or the grace, but not the clean-up, which must leave nothing behind. If all this takes
    longer than ``stop_limit_s`` (None: unlimited), something hangs, and the kernel ends the
    process.

    Raises ``StartupError`` if the address can't be used, the errors of the start of the app, and
    that of the entrance.
    """
    retain_freed_buffers()
    # Error responses to malformed requests have this header as well, and no hook of the app.
    web_response.SERVER_SOFTWARE = name  # type: ignore[attr-defined]
    app.on_startup.append(_freeze)
    if entrance is not None:
        _run(_serve(app, entrance, drain, end_streams, stop_limit_s))
        return
    listener = listen(host, port, max_per_peer=max_per_peer)
    shown_host = f"[{host}]" if ":" in host else host
    url = f"http://{shown_host}:{listener.getsockname()[1]}"

    def announce() -> None:
        logger.info("%s %s listening on %s", name, version, url)
        for page, path in pages.items():
            logger.info("%s: %s%s", page, _browsable(url), path)

    with listener:
        _run(_serve(app, Port(listener, announce), drain, end_streams, stop_limit_s))


def _browsable(url: str) -> str:
    """Return a URL that a browser on this machine can open, also for addresses such as 0.0.0.0."""
    return url.replace("//0.0.0.0:", "//localhost:").replace("//[::]:", "//localhost:")


async def _freeze(_: web.Application) -> None:
    """Exclude objects that live as long as the process from garbage collection.

    Otherwise each full collection visits them, which blocks the loop for tens of milliseconds.
    """
    release_free_memory()
    gc.freeze()


def _run(service: Coroutine[Any, Any, None]) -> None:
    """Run a service in a new event loop.

    Unlike ``asyncio.run``, it does not wait for threads: one may hang on a broken file system.
    """
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(service)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _serve(
    app: web.Application,
    entrance: Entrance,
    drain: Drain,
    end_streams: Callable[[], None],
    stop_limit_s: float | None,
) -> None:
    signals = StopSignals()
    report_exhaustion(asyncio.get_running_loop())
    requests = RequestsInProgress(app)
    runner = web.AppRunner(
        app,
        access_log_class=AccessLog,
        shutdown_timeout=CANCELLATION_S,
        keepalive_timeout=KEEP_ALIVE_S,
        read_bufsize=READ_BUFFER_BYTES,
        # ``bounded_bodies`` refuses compressed bodies, but aiohttp would decompress them.
        auto_decompress=False,
    )
    problem: DomainError | None = None
    try:
        if not await signals.interrupting(runner.setup()):
            return
        await entrance.open(runner)
        try:
            await signals.interrupting(entrance.wait())
        except DomainError as error:
            problem = error
        if stop_limit_s is not None:
            end_process_after(stop_limit_s)
        await signals.interrupting(_drain_safely(drain))
        await entrance.close()
        end_streams()
        if runner.server is not None:
            await signals.interrupting(requests.finish(runner.server, entrance, SHUTDOWN_GRACE_S))
        await entrance.leave()
    finally:
        await runner.cleanup()
    if problem is not None:
        raise problem


async def _drain_safely(drain: Drain) -> None:
    try:
        await drain()
    except Exception:
        logger.exception("The drain failed; the service stops without it")
