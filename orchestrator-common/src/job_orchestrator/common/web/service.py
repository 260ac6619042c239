"""Runs a service until a signal."""

import gc
import logging
from collections.abc import Mapping

from aiohttp import web

from job_orchestrator.common.runtime.process_tuning import release_free_memory, retain_freed_buffers
from job_orchestrator.common.web.access_log import AccessLog
from job_orchestrator.common.web.listener import listen
from job_orchestrator.common.web.stopping import Drain, drains_first, nothing_to_drain

logger = logging.getLogger(__name__)

SHUTDOWN_GRACE_S = 10.0
KEEP_ALIVE_S = 75.0
# Also the part of a body that may arrive unread: enough for a block of the parser.
READ_BUFFER_BYTES = 1 << 20

NO_PAGES: Mapping[str, str] = {}


def _to_open(url: str) -> str:
    """Return a URL that a browser on this machine can open, also for addresses such as 0.0.0.0."""
    return url.replace("//0.0.0.0:", "//localhost:").replace("//[::]:", "//localhost:")


async def _freeze(_: web.Application) -> None:
    """Exclude objects that live as long as the process from garbage collection.

    Otherwise each full collection visits them, which blocks the loop for tens of milliseconds.
    """
    release_free_memory()
    gc.freeze()


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
            logger.info("%s: %s%s", page, _to_open(url), path)

    app.on_startup.append(drains_first(drain))
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
