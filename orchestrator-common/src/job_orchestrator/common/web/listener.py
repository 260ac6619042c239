"""The listening socket of a service, with limits for its peers.

aiohttp closes connections that do not send a complete request head in time. This module adds a
limit on the connections from one address, and on the time for which a peer may accept nothing of a
response. When the process has no file descriptor for a connection, accepting pauses.
"""

import asyncio
import errno
import logging
import resource
import socket
import time
from collections import Counter
from typing import Any

from job_orchestrator.common.errors import StartupError

logger = logging.getLogger(__name__)

STALLED_S = 300
"""Time after which a peer that acknowledges no data is disconnected, in seconds (tcp(7))."""

WARN_INTERVAL_S = 60.0

ACCEPT_PAUSE_S = 1.0
"""Time for which no connection is accepted after the system had no resources for one, in seconds.

asyncio stops watching the socket for the same time."""

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def listen(host: str, port: int, *, max_per_peer: int = 0) -> "Listener":
    """Bind a socket that does not listen yet: no peer can connect before the app has started.

    It allows ``max_per_peer`` connections from one address, 0: any number. Raises ``StartupError``
    if the address can't be used.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = Listener(family, kind)
    except OSError as error:
        raise StartupError(f"HOST is {host!r}; it must be an address of this machine") from error
    listener.max_per_peer = max_per_peer
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit it. It also applies while the peer announces a window of 0.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_S * 1000)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise StartupError(
            f"Can't listen on {host} port {port}: {error.strerror}. "
            "Choose another with --port or PORT"
        ) from error
    return listener


def allow_open_files() -> None:
    """Raise the limit of open files of this process to the maximum that it may have.

    Each connection is an open file, and most systems start with a limit of 1024, because of
    programs that use ``select``. Child processes inherit the limit.
    """
    _, maximum = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (maximum, maximum))


def report_exhaustion(loop: asyncio.AbstractEventLoop) -> None:
    """Log that the system has no resources for a connection once a minute, as one line.

    asyncio reports it with a traceback at every attempt.
    """
    warnings = RareWarnings()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if "socket" in context and isinstance(error, OSError) and error.errno in EXHAUSTED:
            warnings.warn(
                "No connection can be accepted: %s. Connections wait until others are closed",
                error.strerror,
            )
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)


class RareWarnings:
    """Warnings about something that may happen very often, of which one a minute is logged."""

    def __init__(self) -> None:
        self._next_at = 0.0

    def warn(self, message: str, *values: object) -> None:
        """Log a warning, unless there was one in the last minute."""
        if time.monotonic() >= self._next_at:
            self._next_at = time.monotonic() + WARN_INTERVAL_S
            logger.warning(message, *values)


class Listener(socket.socket):
    """Listening socket that immediately closes connections of an address beyond ``max_per_peer``.

    asyncio has no hook between the kernel and the protocol, but it calls ``accept``.
    """

    max_per_peer = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._open: Counter[str] = Counter()
        self._warnings = RareWarnings()
        self._paused_until = 0.0

    @property
    def connections(self) -> int:
        """Number of accepted connections that are not closed."""
        return sum(self._open.values())

    def accept(self) -> tuple[socket.socket, Any]:
        """Return the next connection within the limit.

        Raises ``BlockingIOError`` if there is none, or if accepting pauses; ``OSError`` once before
        each pause. asyncio then watches the socket again after the pause, but first repeats the
        call, up to its backlog.
        """
        if time.monotonic() < self._paused_until:
            raise BlockingIOError
        while True:
            try:
                connection, address = super().accept()
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._paused_until = time.monotonic() + ACCEPT_PAUSE_S / 2
                raise
            peer = str(address[0])
            if not self.max_per_peer or self._open[peer] < self.max_per_peer:
                counted = Counted(fileno=connection.detach())
                counted.count(self._open, peer)
                return counted, address
            connection.close()
            self._warnings.warn(
                "%s has %d open connections, the maximum; more are closed immediately",
                peer,
                self.max_per_peer,
            )


class Counted(socket.socket):
    """Connection that is counted until it is closed."""

    _counter: "Counter[str] | None" = None
    _peer = ""

    def count(self, counter: "Counter[str]", peer: str) -> None:
        """Count the connection as one of ``peer``."""
        self._counter, self._peer = counter, peer
        counter[peer] += 1

    def close(self) -> None:
        """Close the connection, and stop counting it."""
        counter, self._counter = self._counter, None
        if counter is not None:
            counter[self._peer] -= 1
            if counter[self._peer] <= 0:
                del counter[self._peer]
        super().close()
