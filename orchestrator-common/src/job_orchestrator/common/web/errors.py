"""Translation of exceptions to JSON error responses."""

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from job_orchestrator.common.errors import (
    BadRequest,
    DomainError,
    FilesTooLarge,
    Forbidden,
    NoSuchPath,
    StorageFull,
    TooLarge,
    TryLater,
    Unauthorized,
    Unhealthy,
)
from job_orchestrator.common.storage.form_receiver import BodyTimeout
from job_orchestrator.common.web.bodies import BodyTooLarge, CompressedBody
from job_orchestrator.common.web.foreign_pages import UnknownHost

logger = logging.getLogger(__name__)

DescribeError = Callable[[web.Request, DomainError], str]
"""Function from a request and its domain error to the message for the sender of the request."""

ErrorBody = Callable[[web.Request | None, Exception | None, str], bytes]
"""Function from the request, the domain error, if there is one, and the message to the JSON body.

There is no request for the examples of the documentation.
"""

COMMON_STATUSES: Mapping[type[DomainError], HTTPStatus] = {
    BadRequest: HTTPStatus.BAD_REQUEST,
    BodyTimeout: HTTPStatus.REQUEST_TIMEOUT,
    TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    FilesTooLarge: HTTPStatus.BAD_REQUEST,  # part of the HTTP contract
    BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    CompressedBody: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    Unauthorized: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    UnknownHost: HTTPStatus.MISDIRECTED_REQUEST,
    StorageFull: HTTPStatus.INSUFFICIENT_STORAGE,
    TryLater: HTTPStatus.SERVICE_UNAVAILABLE,
    Unhealthy: HTTPStatus.INTERNAL_SERVER_ERROR,
}


def error_middleware(
    statuses: Mapping[type[DomainError], HTTPStatus],
    error_body: ErrorBody,
    describe: DescribeError = lambda _, error: str(error),
) -> Middleware:
    """Create the middleware that translates exceptions of handlers to JSON responses.

    ``statuses``, in addition to ``COMMON_STATUSES``, maps an error class and its subclasses to a
    status code. A domain error without a status is a 500, like any other exception. If the response
    has already started, the connection is closed, so that the reader sees that it is incomplete.
    """
    table = {**COMMON_STATUSES, **statuses}

    def answer(
        request: web.Request, status: int, error: Exception | None, message: str
    ) -> web.Response:
        return web.Response(
            body=error_body(request, error, message) + b"\n",
            status=status,
            content_type="application/json",
        )

    async def translate(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            if error.status < HTTPStatus.BAD_REQUEST:
                raise
            known = NoSuchPath() if error.status == HTTPStatus.NOT_FOUND else None
            response = answer(request, error.status, known, _router_message(request, error))
            if isinstance(error, web.HTTPMethodNotAllowed):
                response.headers["Allow"] = error.headers["Allow"]
            return response
        except DomainError as error:
            status = _status_of(error, table)
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(error, TryLater):
                logger.error("%s %s: %s", request.method, request.path, error)
            response = answer(request, status, error, describe(request, error))
            if status == HTTPStatus.UNAUTHORIZED:
                response.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
            if isinstance(error, CompressedBody):
                response.headers[hdrs.ACCEPT_ENCODING] = "identity"
            if isinstance(error, TryLater):
                response.headers[hdrs.RETRY_AFTER] = str(error.retry_after_s)
            return response
        except (web.RequestPayloadError, ConnectionError) as error:
            logger.info("%s %s: the peer disconnected: %s", request.method, request.path, error)
            return answer(
                request, HTTPStatus.BAD_REQUEST, None, "Multipart error: the body broke off"
            )
        except Exception:
            logger.exception("%s %s failed", request.method, request.path)
            return answer(
                request,
                HTTPStatus.INTERNAL_SERVER_ERROR,
                None,
                "Internal error; the log has the details",
            )

    @web.middleware
    async def translate_or_abort(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await translate(request, handler)
        another_has_started = request.writer.output_size > 0 and not response.prepared
        if another_has_started and request.transport is not None:
            # An error response would appear as a part of the response that has started.
            request.transport.abort()
        return response

    return translate_or_abort


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
        return f"{request.method} is not allowed at {request.path}; allowed: {allowed}"
    return error.text or error.reason
