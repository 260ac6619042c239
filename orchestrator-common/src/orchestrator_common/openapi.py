"""The OpenAPI document and Swagger UI of a service; the only module that knows aiohttp-swagger3.

A handler documents itself: the part of its docstring after ``---`` is the OpenAPI operation in
YAML. The library's request validation is off, because it would read upload bodies into memory;
handlers check what they take.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web
from aiohttp_swagger3 import SwaggerDocs, SwaggerInfo, SwaggerUiSettings

UI_PATH = "/swagger-ui/"
DOCUMENT_PATH = "/api-docs/openapi.json"


SERVICE_SCHEMAS: Mapping[str, Any] = {
    "Health": {
        "type": "object",
        "required": ["status", "version"],
        "properties": {"status": {"type": "string"}, "version": {"type": "string"}},
        "example": {"status": "healthy", "version": "0.1.0"},
    },
    "Pong": {
        "type": "object",
        "required": ["message"],
        "properties": {"message": {"type": "string"}},
        "example": {"message": "pong"},
    },
}
"""Of the answers that every service gives."""


def document_routes(
    app: web.Application,
    routes: Iterable[web.RouteDef],
    *,
    info: SwaggerInfo,
    schemas: Mapping[str, Any],
) -> None:
    """Add ``routes`` to ``app``, with their document at ``DOCUMENT_PATH`` and UI at ``UI_PATH``.

    ``schemas``, with those of the answers that every service gives, become the document's
    ``components/schemas``.
    """
    docs = SwaggerDocs(
        app,
        validate=False,
        info=info,
        # Unless told None, the UI sends the document to a public validator on another host.
        swagger_ui_settings=SwaggerUiSettings(path=UI_PATH, validatorUrl=None),
    )
    docs.spec["components"] = {"schemas": {**schemas, **SERVICE_SCHEMAS}}
    docs.add_routes(list(routes))

    async def openapi_document(_: web.Request) -> web.Response:
        return web.json_response(docs.spec)

    async def to_ui(_: web.Request) -> web.Response:
        raise web.HTTPFound(UI_PATH)

    app.router.add_get(DOCUMENT_PATH, openapi_document)
    app.router.add_get("/swagger", to_ui)


def api_info(title: str, version: str, description: str) -> SwaggerInfo:
    """The head of the document."""
    return SwaggerInfo(title=title, version=version, description=description)
