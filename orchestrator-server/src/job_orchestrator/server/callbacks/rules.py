"""Checks of callback URLs, which users choose and the server calls from inside its own network.

There are two separate checks. The host must be listed by the administrator: this is checked at the
upload, and again before each delivery. The address must be public, unless private addresses are
allowed: this is checked when the socket is created, after all name resolution. A name that resolves
to another address the second time (DNS rebinding) therefore gains nothing.
"""

import errno
import fnmatch
import re
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from aiohappyeyeballs import AddrInfoType
from yarl import URL

from job_orchestrator.common.errors import BadRequest
from job_orchestrator.server.model import CallbackRules

MAX_URL_LENGTH = 2000

_PLAIN_URL = re.compile(r"[!-~]+")
_GLOBAL_UNICAST = IPv6Network("2000::/3")
# Teredo and 6to4: an address of these leads to the IPv4 address that it contains.
_TUNNELS = (IPv6Network("2001::/32"), IPv6Network("2002::/16"))


class CallbackRefused(BadRequest):
    """The rules do not allow a callback to this URL."""


def check_url(url: str, rules: CallbackRules) -> None:
    """Raise ``CallbackRefused`` unless the administrator has listed the host of ``url``."""
    if not rules.patterns:
        raise CallbackRefused("callback_url is not allowed here: CALLBACK_ALLOW is not set")
    host = host_of(url)
    if not any(fnmatch.fnmatchcase(host, pattern) for pattern in rules.patterns):
        raise CallbackRefused(f"callback_url is not allowed for the host {host!r}")


def open_socket(info: AddrInfoType, rules: CallbackRules) -> socket.socket:
    """Create the socket for a connection to a resolved address; a socket factory for aiohttp.

    Raises ``OSError`` with ``EACCES`` for an address that callbacks may not go to.
    """
    family, kind, protocol, _, address = info
    if not rules.allow_private and not is_public(str(address[0])):
        raise OSError(errno.EACCES, "callbacks may not go to this address, it is not public")
    return socket.socket(family, kind, protocol)


def is_public(address: str) -> bool:
    """Return whether an IP address belongs to the public internet."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if not ip.is_global or ip.is_multicast:
        return False
    if isinstance(ip, IPv4Address):
        return not ip.is_reserved
    return ip in _GLOBAL_UNICAST and not any(ip in tunnel for tunnel in _TUNNELS)


def host_of(url: str) -> str:
    """Return the host of a callback URL, in lower case. Raises ``CallbackRefused``.

    The URL is parsed by yarl, as it is for the request, so that the host that is checked cannot
    differ from the host that is called.
    """
    try:
        parsed = URL(url)
        is_usable = (
            len(url) <= MAX_URL_LENGTH
            and _PLAIN_URL.fullmatch(url)
            and parsed.scheme in ("http", "https")
            and parsed.user is None
            and parsed.port != 0
        )
        host = parsed.host
    except ValueError:
        is_usable = host = None
    if not (is_usable and host):
        raise CallbackRefused("Invalid callback_url, should be an http:// or https:// URL")
    return host.lower()
