"""The end of a service: signals, and the requests that are in progress when one arrives."""

import asyncio
import contextlib
import faulthandler
import signal
from collections.abc import Coroutine
from typing import Any, Protocol

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

POLL_S = 0.02


class Peers(Protocol):
    """The peers of a service."""

    @property
    def connections(self) -> int:
        """Number of connections that are open."""


def end_process_after(seconds: float) -> None:
    """End this process after ``seconds`` even if a thread hangs; first, its threads are printed.

    The kernel does it, by SIGALRM: neither a thread nor the event loop is needed.
    """
    with contextlib.suppress(ValueError, OSError):  # stderr has no descriptor: nothing is printed
        faulthandler.register(signal.SIGALRM, all_threads=True, chain=True)
    signal.setitimer(signal.ITIMER_REAL, seconds)


class StopSignals:
    """SIGTERM and SIGINT. The first one begins the stop, each further one ends a wait of it.

    Needs a running event loop.
    """

    def __init__(self) -> None:
        self._pending = asyncio.Semaphore(0)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._pending.release)

    async def wait(self) -> None:
        """Wait for the next signal."""
        await self._pending.acquire()

    async def interrupting(self, work: Coroutine[Any, Any, None]) -> bool:
        """Run ``work`` until it ends or the next signal cancels it; return whether it has ended.

        Raises the error of ``work``.
        """
        working = asyncio.ensure_future(work)
        arriving = asyncio.ensure_future(self.wait())
        try:
            await asyncio.wait({working, arriving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            arriving.cancel()
            if not working.done():
                working.cancel()
                await asyncio.wait({working})
        if working.cancelled():
            return False
        working.result()
        return True


class RequestsInProgress:
    """The connections whose request is being handled.

    aiohttp reads nothing from a connection that it has been requested to close, so the rest of an
    upload would not arrive any more. Therefore a service closes connections only when its handlers
    have returned.
    """

    def __init__(self, app: web.Application) -> None:
        """Observe the requests of ``app``, whose other middlewares run within this one."""
        self._connections: set[object] = set()
        self._none = asyncio.Event()
        self._none.set()
        self._is_ending = False
        app.middlewares.insert(0, self._observe)
        app.on_response_prepare.append(self._end_connection)

    async def finish(self, server: web.Server, peers: Peers, grace_s: float) -> None:
        """Wait until all requests are answered and all connections closed, at most ``grace_s``.

        Must be called when no connection is accepted any more.
        """
        self._is_ending = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                # Handlers of requests that have just arrived are not running yet.
                await asyncio.sleep(POLL_S)
                await self._none.wait()
                # Both together end the idle connections, and wait for files, which are sent after
                # the return of their handler.
                server.pre_shutdown()
                await server.shutdown(grace_s)
                # The end of a response may still be in the buffer of its connection.
                while peers.connections:  # noqa: ASYNC110 (there is no event)
                    await asyncio.sleep(POLL_S)

    @web.middleware
    async def _observe(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = request.protocol
        self._connections.add(connection)
        self._none.clear()
        try:
            return await handler(request)
        finally:
            self._connections.discard(connection)
            if not self._connections:
                self._none.set()

    async def _end_connection(self, _: web.Request, response: web.StreamResponse) -> None:
        """Make a response the last one of its connection, if the service stops."""
        if self._is_ending:
            response.headers[hdrs.CONNECTION] = "close"
            response.force_close()
