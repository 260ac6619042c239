"""Delivery of callbacks to untrusted URLs, signed as the Standard Webhooks specification says.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import asyncio
import base64
import errno
import hashlib
import hmac
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from job_orchestrator.common.errors import DomainError, describe_os_error
from job_orchestrator.server.callbacks.rules import CallbackRefused, check_url, open_socket
from job_orchestrator.server.model import CallbackRules

TIMEOUT_S = 15.0
"""Limit of a whole delivery: name resolution, connection, request, head of the response."""

MAX_CONNECTIONS = 16
RESOLVER_THREADS = 4


class CallbackFailed(DomainError):
    """The receiver did not accept a callback. A later delivery may succeed."""


class CallbackRejected(DomainError):
    """The callback can never be delivered."""


@dataclass(frozen=True)
class Message:
    """A callback. Receivers use ``id`` as an idempotency key: a repeated delivery has the same."""

    id: str
    body: bytes


def signature(key: bytes, message: Message, timestamp: int) -> str:
    """Return the ``webhook-signature`` of a message sent at ``timestamp`` (seconds)."""
    signed = b"%b.%d.%b" % (message.id.encode(), timestamp, message.body)
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


class Resolver(AbstractResolver):
    """Resolver of host names with a separate thread pool.

    A name server that does not answer blocks a thread for a long time; threads of the event loop's
    pool are needed by everything else.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="resolver")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host. Raises ``OSError``."""
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads,
            partial(socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM),
        )
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Cancel the look-ups that have not started."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class WebhookSender:
    """HTTP client that delivers callbacks.

    ``key`` signs them, ``now`` returns seconds since the epoch, ``timeout_s`` limits a delivery.
    """

    def __init__(
        self,
        rules: CallbackRules,
        key: bytes,
        now: Callable[[], float],
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._rules = rules
        self._key = key
        self._now = now
        self._timeout_s = timeout_s
        self._resolver = Resolver()
        self._session = aiohttp.ClientSession(
            # Connections are not reused: the rules are checked for each delivery.
            connector=aiohttp.TCPConnector(
                limit=MAX_CONNECTIONS,
                force_close=True,
                resolver=self._resolver,
                socket_factory=partial(open_socket, rules=rules),
            ),
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Abort all deliveries."""
        await self._session.close()
        await self._resolver.close()

    async def send(self, url: str, message: Message) -> None:
        """Deliver a message. Raises ``CallbackFailed``, ``CallbackRejected``."""
        try:
            check_url(url, self._rules)
        except CallbackRefused as refused:
            raise CallbackRejected(str(refused)) from refused
        timestamp = int(self._now())
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self._key, message, timestamp),
        }
        try:
            async with self._session.post(
                url, data=message.body, headers=headers, allow_redirects=False
            ) as response:
                status = response.status
                # The body of the response is not read.
                response.close()
        except TimeoutError as error:
            raise CallbackFailed(f"no answer within {self._timeout_s:g} s") from error
        except aiohttp.ClientConnectorError as error:
            # To aiohttp, an address that the rules refuse is an error of the operating system.
            is_refused = error.os_error.errno == errno.EACCES
            reason = error.os_error.strerror if is_refused else describe_os_error(error.os_error)
            raise CallbackFailed(str(reason)) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise CallbackFailed(str(error) or type(error).__name__) from error
        if status == HTTPStatus.GONE:
            raise CallbackRejected("the receiver answered 410: it is gone for good")
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            raise CallbackFailed(f"the receiver answered {status}")
