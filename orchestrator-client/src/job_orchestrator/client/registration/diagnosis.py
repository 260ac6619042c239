"""Reasons for which a server can't be dialed, with what to change."""

from dataclasses import dataclass

import aiohttp

from job_orchestrator.common.errors import describe_os_error
from job_orchestrator.common.protocol.tunnel import PATH, CloseCode

NGINX_LINES = (
    "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;"
    ' proxy_set_header Connection "upgrade";'
)

FATAL_CODES = frozenset({CloseCode.NAME_IN_USE, CloseCode.REPLACED, CloseCode.FORGOTTEN})
"""Reasons for which the server ends a tunnel that a further attempt would not change."""

_PROXY_FAILED = (500, 502, 503, 504)


class Redirected(aiohttp.ClientError):
    """An answer that leads to another URL, which is not followed."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.location = location


@dataclass(frozen=True)
class Diagnosis:
    """Reason for a failed connection. ``is_final``: a further attempt has the same result.

    A client that has been connected before goes on trying nevertheless: settings may change back.
    """

    message: str
    is_final: bool = False


def diagnose(error: BaseException, url: str) -> Diagnosis:
    """Explain a failed attempt to dial the server at ``url``."""
    match error:
        case Redirected():
            return Diagnosis(
                f"{url} redirects to {error.location[:200]!r}. Set SERVER_URL to the address of"
                f" jo-server itself; if that is a page to log in, except {PATH} from it",
                is_final=True,
            )
        case aiohttp.WSServerHandshakeError():
            return _of_answer(error, url)
        case aiohttp.ClientHttpProxyError():
            return Diagnosis(
                f"the proxy of HTTPS_PROXY or HTTP_PROXY answered {error.status} {error.message}."
                " Set it to a proxy that lets connections to jo-server through, or add the host of"
                " jo-server to NO_PROXY"
            )
        case aiohttp.ClientProxyConnectionError():
            return Diagnosis(
                "the proxy of HTTPS_PROXY or HTTP_PROXY can't be reached:"
                f" {describe_os_error(error.os_error)}"
            )
        case aiohttp.ClientConnectorCertificateError():
            return Diagnosis(
                f"the certificate of {url} can't be trusted: {error.certificate_error}. Set"
                " SSL_CERT_FILE to the certificate of the authority that has signed it",
                is_final=True,
            )
        case aiohttp.ClientConnectorDNSError():
            return Diagnosis(f"the name of {url} is not known here. Check SERVER_URL and the DNS")
        case aiohttp.ClientConnectorError():
            return Diagnosis(f"{url} can't be reached: {describe_os_error(error.os_error)}")
        case aiohttp.InvalidURL():
            return Diagnosis(f"SERVER_URL is {url!r}, which is not a URL", is_final=True)
        case TimeoutError():
            return Diagnosis(
                f"{url} does not answer. If there is a proxy before jo-server, let it pass"
                f" WebSockets on; nginx: {NGINX_LINES}"
            )
    return Diagnosis(f"the connection to {url} broke: {error}")


def _of_answer(error: aiohttp.WSServerHandshakeError, url: str) -> Diagnosis:
    """Explain an answer that is not that of a WebSocket."""
    match error.status:
        case 401:
            return Diagnosis(
                "jo-server does not accept SERVER_TOKEN: it is missing or not known, was revoked,"
                " or has expired. Create one there: jo-server token create --client --services"
                " NAME,…",
                is_final=True,
            )
        case 403:
            return Diagnosis(
                "jo-server, or a proxy before it, does not admit this client. SERVER_TOKEN must be"
                " the token of a client: jo-server token create --client --services NAME,…",
                is_final=True,
            )
        case 404 | 405:
            return Diagnosis(
                f"there is no jo-server with {PATH} at {url}: SERVER_URL is wrong, or jo-server"
                " is an older version",
                is_final=True,
            )
        case 421:
            return Diagnosis(
                "jo-server does not answer to the host name of SERVER_URL: add it to ALLOWED_HOSTS"
                " of jo-server",
                is_final=True,
            )
        case 407:
            return Diagnosis(
                "the proxy asks for a password: set HTTPS_PROXY=http://USER:PASSWORD@…"
            )
        case status if status in _PROXY_FAILED:
            return Diagnosis(f"a proxy before jo-server answered {status}: jo-server is not up")
        case 413 | 414 | 431:
            return Diagnosis(
                f"a proxy before jo-server answered {error.status}: it allows too little for a"
                " request. nginx: client_max_body_size 0; large_client_header_buffers 4 16k;"
            )
    return Diagnosis(
        f"{url} answered {error.status} to the request for a WebSocket: a proxy before jo-server"
        f" does not pass it on. For nginx, add to the location: {NGINX_LINES}"
    )
