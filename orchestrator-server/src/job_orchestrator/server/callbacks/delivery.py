"""Calling a URL of a user's: signed as in the Standard Webhooks scheme, and with no trust in it.

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
from job_orchestrator.server.callbacks.rules import CallbackRefused, CallbackRules

TIMEOUT_S = 15.0
"""For all of it: resolution, connection, request, the head of the answer."""

MAX_CONNECTIONS = 16
RESOLVER_THREADS = 4


class CallbackFailed(DomainError):
    """The receiver did not take it; it may take it later."""


class CallbackUnwanted(DomainError):
    """It is of no use to try again."""


@dataclass(frozen=True)
class Message:
    """What is to be told. The same ``id`` again is the same message, which receivers may drop."""

    id: str
    body: bytes


def signature(key: bytes, message: Message, timestamp: int) -> str:
    """The ``webhook-signature`` of a message that is sent at ``timestamp`` (seconds)."""
    signed = b"%b.%d.%b" % (message.id.encode(), timestamp, message.body)
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


class Resolver(AbstractResolver):
    """Resolves names in threads of its own.

    A name server that doesn't answer holds a thread for long, and those of the loop are needed by
    everything else.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="resolver")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a host."""
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
        """Begin no more look-ups."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class WebhookCaller:
    """Calls. ``now`` gives seconds since the epoch."""

    def __init__(self, rules: CallbackRules, key: bytes, now: Callable[[], float]) -> None:
        self._rules = rules
        self._key = key
        self._now = now
        self._resolver = Resolver()
        self._session = aiohttp.ClientSession(
            # Each call has a connection of its own: what is allowed is asked for each.
            connector=aiohttp.TCPConnector(
                limit=MAX_CONNECTIONS,
                force_close=True,
                resolver=self._resolver,
                socket_factory=rules.socket_for,
            ),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def close(self) -> None:
        """End all calls."""
        await self._session.close()
        await self._resolver.close()

    async def call(self, url: str, message: Message) -> None:
        """Tell the receiver. Raises ``CallbackFailed``, ``CallbackUnwanted``."""
        try:
            self._rules.check(url)
        except CallbackRefused as refused:
            raise CallbackUnwanted(str(refused)) from refused
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
                # Whatever else the receiver says is not read.
                response.close()
        except TimeoutError as error:
            raise CallbackFailed(f"no answer within {TIMEOUT_S:g} s") from error
        except aiohttp.ClientConnectorError as error:
            # What the rules say of an address is an error of the system to aiohttp.
            ruled_out = error.os_error.errno == errno.EACCES
            reason = error.os_error.strerror if ruled_out else describe_os_error(error.os_error)
            raise CallbackFailed(str(reason)) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise CallbackFailed(str(error) or type(error).__name__) from error
        if status == HTTPStatus.GONE:
            raise CallbackUnwanted("the receiver answered 410: it is gone for good")
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            raise CallbackFailed(f"the receiver answered {status}")
