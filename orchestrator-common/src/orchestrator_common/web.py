"""HTTP plumbing that both services share: error bodies, health, and running until a signal."""

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus

import msgspec
from aiohttp import hdrs, web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.typedefs import Handler, Middleware

from orchestrator_common.errors import (
    BadRequest,
    DomainError,
    Forbidden,
    StorageFull,
    TryLater,
    Unauthorized,
)
from orchestrator_common.listener import listen
from orchestrator_common.log_context import REQUEST_ID
from orchestrator_common.multipart import BodyTimeout
from orchestrator_common.request_ids import request_id_of
from orchestrator_common.stopping import Drain, drains_first

logger = logging.getLogger(__name__)

ErrorBody = Callable[[Exception | None, str], bytes]
"""Makes the JSON body of an error: the domain error if there is one, and the message."""

MAX_BODY_BYTES = 1 << 16
"""Of a request that is no upload."""

SHUTDOWN_GRACE_S = 10.0
KEEP_ALIVE_S = 75.0
# Also how much of a body may arrive unread: enough to fill the blocks that are parsed at once.
READ_BUFFER_BYTES = 1 << 20


class BodyTooLarge(DomainError):
    """A body where none, or a small one, is expected."""


COMMON_STATUSES: Mapping[type[DomainError], HTTPStatus] = {
    BadRequest: HTTPStatus.BAD_REQUEST,
    BodyTimeout: HTTPStatus.REQUEST_TIMEOUT,
    BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Unauthorized: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    StorageFull: HTTPStatus.INSUFFICIENT_STORAGE,
    TryLater: HTTPStatus.SERVICE_UNAVAILABLE,
}


def json_response(
    message: msgspec.Struct, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Answer with a message as JSON."""
    return web.Response(
        body=msgspec.json.encode(message),
        status=status,
        headers=headers,
        content_type="application/json",
    )


def error_middleware(
    statuses: Mapping[type[DomainError], HTTPStatus], error_body: ErrorBody
) -> Middleware:
    """Turn whatever a handler raises into a JSON answer; the only place that does.

    ``statuses`` (beside ``COMMON_STATUSES``) gives the status code of an error class and its
    subclasses; a domain error without one is a 500, like any other exception.
    """
    table = {**COMMON_STATUSES, **statuses}

    def answer(status: int, error: Exception | None, message: str) -> web.Response:
        return web.Response(
            body=error_body(error, message), status=status, content_type="application/json"
        )

    @web.middleware
    async def translate(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            if error.status < HTTPStatus.BAD_REQUEST:
                raise
            response = answer(error.status, None, _router_message(request, error))
            if isinstance(error, web.HTTPMethodNotAllowed):
                response.headers["Allow"] = error.headers["Allow"]
            return response
        except DomainError as error:
            status = _status_of(error, table)
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(error, TryLater):
                logger.error("%s %s: %s", request.method, request.path, error)
            response = answer(status, error, str(error))
            if status == HTTPStatus.UNAUTHORIZED:
                response.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
            if isinstance(error, TryLater):
                response.headers[hdrs.RETRY_AFTER] = str(error.retry_after_s)
            return response
        except (web.RequestPayloadError, ConnectionError) as error:
            logger.info("%s %s: the peer broke off: %s", request.method, request.path, error)
            return answer(HTTPStatus.BAD_REQUEST, None, "Multipart error: the body broke off")
        except Exception:
            logger.exception("%s %s failed", request.method, request.path)
            return answer(
                HTTPStatus.INTERNAL_SERVER_ERROR, None, "Internal error; the log has the details"
            )

    return translate


def _status_of(error: DomainError, table: Mapping[type[DomainError], HTTPStatus]) -> HTTPStatus:
    for cls in type(error).__mro__:
        if cls in table:
            return table[cls]
    return HTTPStatus.INTERNAL_SERVER_ERROR


def _router_message(request: web.Request, error: web.HTTPException) -> str:
    if error.status == HTTPStatus.NOT_FOUND:
        return f"Nothing is at {request.path}; /swagger-ui/ lists what is"
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return f"{request.method} is not possible at {request.path}; it takes {allowed}"
    return error.text or error.reason


def bounded_bodies(*uploads: str) -> Middleware:
    """Refuse a body of more than ``MAX_BODY_BYTES`` on any path but ``uploads``, before it comes.

    One that doesn't tell its length is refused when it is read (``client_max_size``); what no
    handler reads, aiohttp reads for a few seconds and then closes the connection.
    """

    @web.middleware
    async def bound(request: web.Request, handler: Handler) -> web.StreamResponse:
        if (request.content_length or 0) > MAX_BODY_BYTES and request.path not in uploads:
            raise BodyTooLarge(f"This takes no body of more than {MAX_BODY_BYTES} bytes")
        return await handler(request)

    return bound


class Pong(msgspec.Struct, frozen=True):
    """Answer of ``GET /``."""

    message: str = "pong"


async def ping(request: web.Request) -> web.Response:
    """Answer.

    ---
    summary: Show that the service answers
    tags: [service]
    responses:
      "200":
        description: It does
        content:
          application/json:
            schema: {$ref: "#/components/schemas/Pong"}
    """
    return json_response(Pong())


class Health(msgspec.Struct, frozen=True):
    """Answer of ``GET /health`` when all is well."""

    version: str
    status: str = "healthy"


class Unhealthy(DomainError):
    """Something that the service can't work without does not work."""


class AccessLog(AbstractAccessLogger):
    """One line for each request.

    Nothing that a request carries in headers or query is part of it: no Authorization, no token.
    """

    @property
    def enabled(self) -> bool:
        """Spares the work when nobody reads it."""
        return self.logger.isEnabledFor(logging.INFO)

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Log a request that was answered in ``time`` seconds."""
        request_id = request_id_of(request)
        self.logger.info(
            "%s %s %s %d %d bytes %.1f ms",
            request.remote,
            request.method,
            request.path,
            response.status,
            response.body_length,
            time * 1000,
            extra={"about": {} if request_id is None else {REQUEST_ID: request_id}},
        )


NO_PAGES: Mapping[str, str] = {}


def _to_open(url: str) -> str:
    """A URL that a browser on this machine can open: not every address to listen on is one."""
    return url.replace("//0.0.0.0:", "//localhost:").replace("//[::]:", "//localhost:")


def run_service(
    name: str,
    version: str,
    app: web.Application,
    host: str,
    port: int,
    *,
    max_per_peer: int = 0,
    drain: Drain | None = None,
    pages: Mapping[str, str] = NO_PAGES,
) -> None:
    """Serve ``app`` until SIGTERM or SIGINT; blocks.

    Port 0 takes a free one. ``max_per_peer`` connections may come from one address, 0: any number.
    The line that is logged once connections are accepted ends with the URL; ``pages`` to open in a
    browser, paths by name, follow. On a signal: ``drain``,
    while all is served as before, then no new connections, ``app.on_shutdown`` (which closes event
    streams), running requests get ``SHUTDOWN_GRACE_S``, then the clean-up contexts exit.

    Raises ``StartupError`` if the address can't be used, and what the app's start raises.
    """
    listener = listen(host, port, max_per_peer=max_per_peer)
    shown_host = f"[{host}]" if ":" in host else host
    url = f"http://{shown_host}:{listener.getsockname()[1]}"

    def announce(_: str) -> None:
        logger.info("%s %s listening on %s", name, version, url)
        for page, path in pages.items():
            logger.info("%s: %s%s", page, _to_open(url), path)

    if drain is not None:
        app.on_startup.append(drains_first(drain))
    with listener:
        web.run_app(
            app,
            sock=listener,
            print=announce,
            access_log_class=AccessLog,
            shutdown_timeout=SHUTDOWN_GRACE_S,
            keepalive_timeout=KEEP_ALIVE_S,
            read_bufsize=READ_BUFFER_BYTES,
        )
