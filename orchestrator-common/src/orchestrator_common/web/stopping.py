"""What a service does on SIGTERM or SIGINT before it stops."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable

from aiohttp import web

logger = logging.getLogger(__name__)

Drain = Callable[[], Awaitable[None]]


def drains_first(drain: Drain) -> Callable[[web.Application], Awaitable[None]]:
    """A start hook: a signal runs ``drain``, while all is served as before, and stops only then.

    aiohttp's own handler, which this one replaces, closes the listening socket first. A second
    signal stops at once.
    """

    def leave() -> None:
        raise web.GracefulExit

    async def drain_and_leave() -> None:
        try:
            await drain()
        except Exception:
            logger.exception("The service stops without having drained")
        asyncio.get_running_loop().call_soon(leave)

    async def install(_: web.Application) -> None:
        loop = asyncio.get_running_loop()
        draining: list[asyncio.Task[None]] = []

        def stop() -> None:
            if draining:
                leave()
            draining.append(loop.create_task(drain_and_leave(), name="drain"))

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)

    return install
