"""Where callbacks may go. A user names the URL, and the server calls it from inside its network.

Two questions, asked apart: whether an administrator has listed the host by name (at the upload, and
again before each delivery), and whether the address that is really connected to is a public one.
The second is asked where the socket is made, after all resolution: a name that resolves to another
address the second time (DNS rebinding) gains nothing.
"""

import base64
import errno
import fnmatch
import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from aiohappyeyeballs import AddrInfoType
from yarl import URL

from job_orchestrator.common.errors import BadRequest

MAX_URL = 2000
SECRET_PREFIX = "whsec_"  # noqa: S105 (a prefix)

_PLAIN_URL = re.compile(r"[!-~]+")
_GLOBAL_UNICAST = IPv6Network("2000::/3")
# Tunnels, whose addresses lead to an IPv4 address that they name.
_TUNNELS = (IPv6Network("2001::/32"), IPv6Network("2002::/16"))


class CallbackRefused(BadRequest):
    """This URL is not one that may be called."""


@dataclass(frozen=True)
class CallbackRules:
    """``patterns`` are of hosts, in lower case, with ``*`` for anything; none: no callbacks.

    ``allow_private`` lets addresses be called that are not public.
    """

    patterns: tuple[str, ...] = ()
    allow_private: bool = False

    def check(self, url: str) -> None:
        """Raise ``CallbackRefused`` unless ``url`` may be called, as far as its text tells."""
        if not self.patterns:
            raise CallbackRefused("callback_url is not allowed here: CALLBACK_ALLOW is not set")
        host = host_of(url)
        if not any(fnmatch.fnmatchcase(host, pattern) for pattern in self.patterns):
            raise CallbackRefused(f"callback_url is not allowed for the host {host!r}")

    def socket_for(self, info: AddrInfoType) -> socket.socket:
        """A socket to connect to an address with; for aiohttp's connector.

        Raises ``OSError`` for an address that may not be called.
        """
        family, kind, protocol, _, address = info
        if not self.allow_private and not is_public(str(address[0])):
            raise OSError(errno.EACCES, "callbacks may not go to this address, it is not public")
        return socket.socket(family, kind, protocol)


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if not ip.is_global or ip.is_multicast:
        return False
    if isinstance(ip, IPv4Address):
        return not ip.is_reserved
    return ip in _GLOBAL_UNICAST and not any(ip in tunnel for tunnel in _TUNNELS)


def secret_bytes(secret: str) -> bytes:
    """The key that a secret stands for: base64 after ``whsec_``, else itself.

    Raises ``ValueError``.
    """
    if secret.startswith(SECRET_PREFIX):
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    return secret.encode()


def host_of(url: str) -> str:
    """The host of a callback URL, in lower case. Raises ``CallbackRefused``.

    It is parsed by what will call it, so that no two readings of it can differ.
    """
    try:
        parsed = URL(url)
        usable = (
            len(url) <= MAX_URL
            and _PLAIN_URL.fullmatch(url)
            and parsed.scheme in ("http", "https")
            and parsed.user is None
            and parsed.port != 0
        )
        host = parsed.host
    except ValueError:
        usable = host = None
    if not (usable and host):
        raise CallbackRefused("Invalid callback_url, should be an http:// or https:// URL")
    return host.lower()
