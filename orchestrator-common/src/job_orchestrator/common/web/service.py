"""Running a service until a signal."""

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
# Also how much of a body may arrive unread: enough to fill the blocks that are parsed at once.
READ_BUFFER_BYTES = 1 << 20

NO_PAGES: Mapping[str, str] = {}


def _to_open(url: str) -> str:
    """A URL that a browser on this machine can open: not every address to listen on is one."""
    return url.replace("//0.0.0.0:", "//localhost:").replace("//[::]:", "//localhost:")


async def _freeze(_: web.Application) -> None:
    """Spare the garbage collector what lives as long as the process.

    Else each full collection goes through it, and holds everything up for tens of milliseconds.
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
    """Serve ``app`` until SIGTERM or SIGINT; blocks.

    Port 0 takes a free one. ``max_per_peer`` connections may come from one address, 0: any number.
    The line that is logged once connections are accepted ends with the URL; ``pages`` to open in a
    browser, paths by name, follow. On a signal: ``drain``, while all is served as before, then no
    new connections, ``app.on_shutdown`` (which closes event streams), running requests get
    ``SHUTDOWN_GRACE_S``, then the clean-up contexts exit.

    Raises ``StartupError`` if the address can't be used, and what the app's start raises.
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
            # ``plain_bodies`` refuses what is compressed; it would be unpacked all the same.
            auto_decompress=False,
        )
