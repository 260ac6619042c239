"""Runs a service until SIGTERM or SIGINT, and drains it before it stops."""

import asyncio
import gc
import logging
import signal
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from job_orchestrator.common.runtime.process_tuning import release_free_memory, retain_freed_buffers
from job_orchestrator.common.web.listener import listen
from job_orchestrator.common.web.request_log import AccessLog

logger = logging.getLogger(__name__)

Drain = Callable[[], Awaitable[None]]

SHUTDOWN_GRACE_S = 10.0
KEEP_ALIVE_S = 75.0
# Also the part of a body that may arrive unread: enough for a block of the parser.
READ_BUFFER_BYTES = 1 << 20

NO_PAGES: Mapping[str, str] = {}


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
    drain: Drain = nothing_to_drain,
    pages: Mapping[str, str] = NO_PAGES,
) -> None:
    """Serve ``app`` until SIGTERM or SIGINT. Blocks.

    Port 0 selects a free port. ``max_per_peer`` limits the connections from one address, 0: any
    number. When connections are accepted, a log record with the URL is written, then one for each
    of ``pages`` (paths by name) that browsers can open.

    On a signal, ``drain`` runs while requests are served as before. Then the listening socket is
    closed, ``app.on_shutdown`` closes event streams, running requests get ``SHUTDOWN_GRACE_S``, and
    the clean-up contexts exit.

    Raises ``StartupError`` if the address can't be used, and the errors of the start of the app.
    """
    retain_freed_buffers()
    listener = listen(host, port, max_per_peer=max_per_peer)
    shown_host = f"[{host}]" if ":" in host else host
    url = f"http://{shown_host}:{listener.getsockname()[1]}"

    def announce(_: str) -> None:
        logger.info("%s %s listening on %s", name, version, url)
        for page, path in pages.items():
            logger.info("%s: %s%s", page, _browsable(url), path)

    app.on_startup.append(_drain_on_signal(drain))
    app.on_startup.append(_freeze)
    with listener:
        web.run_app(
            app,
            sock=listener,
            print=announce,
            access_log_class=AccessLog,
            shutdown_timeout=SHUTDOWN_GRACE_S,
            keepalive_timeout=KEEP_ALIVE_S,
            read_bufsize=READ_BUFFER_BYTES,
            # ``plain_bodies`` refuses compressed bodies, but aiohttp would decompress them.
            auto_decompress=False,
        )


def _browsable(url: str) -> str:
    """Return a URL that a browser on this machine can open, also for addresses such as 0.0.0.0."""
    return url.replace("//0.0.0.0:", "//localhost:").replace("//[::]:", "//localhost:")


async def _freeze(_: web.Application) -> None:
    """Exclude objects that live as long as the process from garbage collection.

    Otherwise each full collection visits them, which blocks the loop for tens of milliseconds.
    """
    release_free_memory()
    gc.freeze()


def _drain_on_signal(drain: Drain) -> Callable[[web.Application], Awaitable[None]]:
    """Create a start-up hook: on a signal ``drain`` runs, and only then the service stops.

    Requests are served during the drain. The handler of aiohttp, which this one replaces, closes
    the listening socket first. A second signal ends the drain, but not the clean-up after it, which
    must leave nothing behind.
    """

    async def drain_safely() -> None:
        try:
            await drain()
        except Exception:
            logger.exception("The drain failed; the service stops without it")

    async def install(_: web.Application) -> None:
        loop = asyncio.get_running_loop()
        draining: list[asyncio.Task[None]] = []

        def on_signal() -> None:
            if draining:
                draining[0].cancel()
            else:
                draining.append(loop.create_task(drain_safely(), name="drain"))
                draining[0].add_done_callback(_exit)

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, on_signal)

    return install


def _exit(_: object) -> None:
    raise web.GracefulExit
