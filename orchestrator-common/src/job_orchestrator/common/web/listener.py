"""The listening socket of a service, with limits for its peers.

aiohttp closes connections that do not send a complete request head in time. This module adds a
limit on the connections from one address, and on the time for which a peer may accept nothing of a
response.
"""

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


def listen(host: str, port: int, *, max_per_peer: int = 0) -> socket.socket:
    """Bind a socket that does not listen yet: no peer can connect before the app has started.

    It allows ``max_per_peer`` connections from one address, 0: any number. Raises ``StartupError``
    if the address can't be used.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = PeerLimit(family, kind) if max_per_peer else socket.socket(family, kind)
    except OSError as error:
        raise StartupError(f"HOST is {host!r}; it must be an address of this machine") from error
    if isinstance(listener, PeerLimit):
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


class PeerLimit(socket.socket):
    """Listening socket that immediately closes connections of an address beyond ``max_per_peer``.

    asyncio has no hook between the kernel and the protocol, but it calls ``accept``.
    """

    max_per_peer = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._open: Counter[str] = Counter()
        self._warn_at = 0.0

    def accept(self) -> "tuple[socket.socket, Any]":
        """Return the next connection within the limit. Raises ``BlockingIOError``."""
        while True:
            connection, address = super().accept()
            peer = str(address[0])
            if self._open[peer] < self.max_per_peer:
                counted = Counted(fileno=connection.detach())
                counted.count(self._open, peer)
                return counted, address
            connection.close()
            if time.monotonic() >= self._warn_at:
                self._warn_at = time.monotonic() + WARN_INTERVAL_S
                logger.warning(
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
