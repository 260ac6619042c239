"""Work of a service between SIGTERM or SIGINT and its stop."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable

from aiohttp import web

logger = logging.getLogger(__name__)

Drain = Callable[[], Awaitable[None]]


async def nothing_to_drain() -> None:
    """Do nothing: for a service that has no work to end before it stops."""


def drains_first(drain: Drain) -> Callable[[web.Application], Awaitable[None]]:
    """Create a start hook: on a signal ``drain`` runs, and only then the service stops.

    Requests are served during the drain. The handler of aiohttp, which this one replaces, closes
    the listening socket first. A second signal ends the drain, but not the clean-up after it, which
    must leave nothing behind.
    """

    async def drain_at_last() -> None:
        try:
            await drain()
        except Exception:
            logger.exception("The service stops without having drained")

    async def install(_: web.Application) -> None:
        loop = asyncio.get_running_loop()
        draining: list[asyncio.Task[None]] = []

        def stop() -> None:
            if draining:
                draining[0].cancel()
            else:
                draining.append(loop.create_task(drain_at_last(), name="drain"))
                draining[0].add_done_callback(_leave)

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)

    return install


def _leave(_: object) -> None:
    raise web.GracefulExit
