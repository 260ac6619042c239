"""Protection against web pages of other sites, which make a browser send requests.

A page can let the browser send a form to any address that the browser reaches, from inside a
network as well; the header Origin or Sec-Fetch-Site shows that. A page whose host name is led to
the address of this service after it was loaded (DNS rebinding) even has the same origin; only the
header Host shows that. Programs send neither Origin nor Sec-Fetch-Site.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Sequence, Set
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from job_orchestrator.common.errors import DomainError, Forbidden
from job_orchestrator.common.protocol.bearer import bearer_token
from job_orchestrator.common.runtime.threads import in_thread

ANY = "*"
SAFE_METHODS = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})
SEC_FETCH_SITE = "Sec-Fetch-Site"
OWN_PAGES = frozenset({"same-origin", "none"})
"""Values of Sec-Fetch-Site: a page of this service, or the address bar."""

_HOST = re.compile(r"(?:\[(?P<address>[^\[\]]*)\]|(?P<name>[^:\[\]]*))(?::[0-9]*)?")
_PLAIN_NAME = re.compile(r"[a-z0-9._-]*")

PRIVATE_DOMAINS = (".localhost", ".local", ".internal")
"""Domains that nobody can register, so that no page of the internet has such a host name."""


class UnknownHost(DomainError):
    """The header Host has a name that is not one of this service."""


@dataclass(frozen=True)
class PagePolicy:
    """The host names and web pages that a service accepts.

    ``service`` is its name in messages, ``hosts`` the patterns of ALLOWED_HOSTS, ``address`` that
    of HOST. Pages of ``origins`` may call the service. ``token_setting`` is the setting that makes
    tokens required; where ``has_tokens`` says that they are, any host name is accepted, because a
    page has no token.
    """

    service: str
    hosts: Sequence[str]
    address: str
    token_setting: str
    has_tokens: bool
    origins: Set[str] = frozenset()


def refuse_foreign_pages(policy: PagePolicy) -> Middleware:
    """Create the middleware that refuses requests of web pages outside ``policy``."""
    names = HostNames(policy.hosts, policy.address)

    @web.middleware
    async def refuse(request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.headers.get(hdrs.HOST, "")
        if not policy.has_tokens and not await names.include(host):
            name = host_name(host)[:100]
            raise UnknownHost(
                f"{policy.service} does not answer to the host name {name!r}. If users or services"
                f" reach it by this name, add it to ALLOWED_HOSTS of {policy.service}; that is not"
                f" necessary where {policy.token_setting} is set"
            )
        if _can_be_forged(request) and not _is_own_page(request, policy):
            raise Forbidden(
                "Cross-origin requests are not allowed. If the page belongs to this service, add"
                f" the host name of the page to ALLOWED_HOSTS of {policy.service}"
            )
        return await handler(request)

    return refuse


class HostNames:
    """The host names of a service.

    These are IP addresses, the name of the machine, names that nobody can register, and ``allowed``
    patterns. A name without a dot is such a name: container networks and local networks use them.
    """

    def __init__(self, allowed: Sequence[str], address: str) -> None:
        self._allowed = (*allowed, address.lower())
        self._own: frozenset[str] | None = None
        self._resolving = asyncio.Lock()

    async def include(self, host: str) -> bool:
        """Return whether ``host``, the value of a header Host, has a name of the service.

        An empty value is included: browsers always send a name.
        """
        name = host_name(host)
        if _is_address(name):
            return True
        # Browsers take some other characters for dots.
        if _PLAIN_NAME.fullmatch(name) and ("." not in name or name.endswith(PRIVATE_DOMAINS)):
            return True
        return matches(name, self._allowed) or name in await self._own_names()

    async def _own_names(self) -> frozenset[str]:
        # Read when it is needed: a name server that does not answer delays it by seconds.
        async with self._resolving:
            if self._own is None:
                self._own = await in_thread(_names_of_machine)
        return self._own


def host_name(host: str) -> str:
    """Return the name or address in the value of a header Host, in lower case.

    A value of another form is returned whole; it is the name of no service.
    """
    text = host.strip().lower()
    match = _HOST.fullmatch(text)
    if match is None:
        return text
    if match["address"] is not None:
        return match["address"] if _is_address(match["address"]) else text
    return match["name"].rstrip(".")


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Return whether a host name matches one of ``patterns``."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _can_be_forged(request: web.Request) -> bool:
    """Return whether a page of any site can make a browser send this request with an effect.

    A page can't send a bearer token to another origin without permission (CORS). A WebSocket has an
    effect, although its method is GET.
    """
    if bearer_token(request.headers.get(hdrs.AUTHORIZATION)) is not None:
        return False
    return request.method not in SAFE_METHODS or hdrs.UPGRADE in request.headers


def _is_own_page(request: web.Request, policy: PagePolicy) -> bool:
    """Return whether a request is not from a browser, or from a page that may send it."""
    origin = request.headers.get(hdrs.ORIGIN)
    site = request.headers.get(SEC_FETCH_SITE)
    if origin is None:
        return site is None or site in OWN_PAGES
    host = origin.partition("://")[2].lower()
    # The pattern "*" accepts any name of this service; it does not make all pages those of it.
    trusted = [pattern for pattern in policy.hosts if pattern != ANY]
    if policy.origins & {ANY, origin} or matches(host_name(host), trusted):
        return True
    if site is not None:
        return site in OWN_PAGES
    return host == request.headers.get(hdrs.HOST, "").lower()


@lru_cache(maxsize=256)
def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _names_of_machine() -> frozenset[str]:
    names = (socket.gethostname(), socket.getfqdn())
    return frozenset(name.lower().rstrip(".") for name in names)
