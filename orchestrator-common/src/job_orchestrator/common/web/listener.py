"""The socket that a service listens on: who may connect how often, and who holds it up.

aiohttp closes connections that send no whole head in time, or nothing at all. What it leaves open
is done here: a bound on the connections from one address, and on how long a peer may take nothing
of an answer.
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
"""How long a peer may acknowledge nothing of what is sent to it before it is cut off."""

WARN_INTERVAL_S = 60.0


def listen(host: str, port: int, *, max_per_peer: int = 0) -> socket.socket:
    """A socket that is bound but doesn't listen yet: nobody connects before the app has started.

    At most ``max_per_peer`` connections from one address, 0: any number. Raises ``StartupError`` if
    the address can't be used.
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
        # Connections inherit it. It also counts while the peer says that it takes nothing now.
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
    """Let this process open as many files as it may be allowed.

    A connection is one, and most systems begin with 1024, for the sake of programs that use
    ``select``. What this process starts inherits it.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class PeerLimit(socket.socket):
    """A listening socket that closes what an address has opened beyond ``max_per_peer`` at once.

    asyncio has no place for that between the kernel and the protocol; it accepts by this method.
    """

    max_per_peer = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._open: Counter[str] = Counter()
        self._warn_at = 0.0

    def accept(self) -> "tuple[socket.socket, Any]":
        """The next connection that may stay. Raises ``BlockingIOError`` if there is none now."""
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
                    "%s has %d connections open; more of them are closed", peer, self.max_per_peer
                )


class Counted(socket.socket):
    """A connection that is counted until it is closed."""

    _counter: "Counter[str] | None" = None
    _peer = ""

    def count(self, counter: "Counter[str]", peer: str) -> None:
        """Count it as one of ``peer``'s from now on."""
        self._counter, self._peer = counter, peer
        counter[peer] += 1

    def close(self) -> None:
        """Close it, and count it no more."""
        counter, self._counter = self._counter, None
        if counter is not None:
            counter[self._peer] -= 1
            if counter[self._peer] <= 0:
                del counter[self._peer]
        super().close()
