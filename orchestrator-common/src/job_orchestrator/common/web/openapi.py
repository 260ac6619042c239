"""The OpenAPI document and Swagger UI of a service; the only module that knows aiohttp-swagger3.

A handler documents itself: the part of its docstring after ``---`` is the OpenAPI operation in
YAML; of an error it need only tell the status and a description. The library's request validation
is off, because it would read upload bodies into memory; handlers check what they take.

The document is made when it is first asked for: compiling the schema that it is checked against
takes a fifth of a second and 45 MB, which a service that nobody looks at should not cost.
"""

import asyncio
import importlib.util
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from job_orchestrator.common.runtime.process_tuning import release_memory_afterwards
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.web import log_query
from job_orchestrator.common.web.errors import ErrorBody

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

REFUSALS: Mapping[str, str] = {
    "400": "Something in the path, the query or the body can't be used; the message says what",
    "413": "The body is too large",
    "415": "The body has a Content-Encoding; send it as it is",
}
"""What every route may answer, whatever it does."""

REFUSALS_OF_ACCESS: Mapping[str, str] = {
    "401": "A token is needed, and none that is known was shown",
    "403": "The token does not allow it",
}
"""What every route may answer that is not open to everybody."""

_UI_PAGE = """<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="UTF-8">
    <title>Swagger UI</title>
    <link rel="stylesheet" href="swagger_ui_static/swagger-ui.css">
    <link rel="icon" type="image/png" href="swagger_ui_static/favicon-32x32.png">
  </head>
  <body>
    <div id="swagger-ui"></div>
    <script src="swagger_ui_static/swagger-ui-bundle.js"></script>
    <script src="start.js"></script>
  </body>
</html>
"""

# Unless told null, the UI sends the document to a public validator on another host.
_UI_START = """SwaggerUIBundle({
  "url": "../api-docs/openapi.json",
  "dom_id": "#swagger-ui",
  "deepLinking": true,
  "validatorUrl": null
});
"""


@dataclass(frozen=True)
class Api:
    """What the document says beside what the handlers say.

    ``schemas``, with those of the answers that every service gives, become the document's
    ``components/schemas``; ``error`` is the name of the one that errors have, and ``error_body``
    makes them. ``is_open`` tells of a path whether it takes no token.
    """

    title: str
    version: str
    description: str
    schemas: Mapping[str, Any]
    error: str
    error_body: ErrorBody
    is_open: Callable[[str], bool]


def document_routes(app: web.Application, routes: Iterable[web.RouteDef], api: Api) -> None:
    """Add ``routes`` to ``app``, with their document at ``DOCUMENT_PATH`` and UI at ``UI_PATH``."""
    routes = list(routes)
    app.add_routes(routes)
    document = _Document(routes, api)
    for path in (DOCUMENT_PATH, f"{UI_PATH}swagger.json"):
        app.router.add_get(path, document.answer)
    app.router.add_get(UI_PATH, _ui_page)
    app.router.add_get(f"{UI_PATH}start.js", _ui_start)
    app.router.add_static(f"{UI_PATH}swagger_ui_static", _library_folder() / "swagger_ui")
    for path in ("/swagger", UI_PATH.rstrip("/")):
        app.router.add_get(path, _to_ui)


class _Document:
    """The document of ``routes``, encoded, from the first request for it on."""

    def __init__(self, routes: list[web.RouteDef], api: Api) -> None:
        self._routes = routes
        self._api = api
        self._making = asyncio.Lock()
        self._encoded: bytes | None = None

    async def answer(self, _: web.Request) -> web.Response:
        """GET ``DOCUMENT_PATH``."""
        async with self._making:
            if self._encoded is None:
                self._encoded = await in_thread(self._make_and_forget)
        return web.Response(body=self._encoded, content_type="application/json")

    def _make_and_forget(self) -> bytes:
        with release_memory_afterwards():
            return self._make()

    def _make(self) -> bytes:
        from aiohttp_swagger3 import SwaggerDocs, SwaggerInfo  # because of what it costs: see above

        # An application of its own: that of the service takes no routes any more.
        info = SwaggerInfo(
            title=self._api.title, version=self._api.version, description=self._api.description
        )
        docs = SwaggerDocs(web.Application(), validate=False, info=info)
        docs.spec["components"] = {
            "schemas": {**self._api.schemas, **SERVICE_SCHEMAS},
            "parameters": log_query.PARAMETERS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        }
        # With or without: whether a token is wanted is a matter of settings.
        docs.spec["security"] = [{}, {"token": []}]
        docs.add_routes(self._routes)
        for path, operations in docs.spec["paths"].items():
            for operation in operations.values():
                self._add_refusals(path, operation)
                for status, response in operation["responses"].items():
                    if status >= "400":
                        self._add_error(response)
        return json.dumps(docs.spec).encode()

    def _add_refusals(self, path: str, operation: dict[str, Any]) -> None:
        """What the route may answer whatever it does, unless it says so itself."""
        refusals = REFUSALS
        if self._api.is_open(path):
            operation["security"] = []
        else:
            refusals = {**REFUSALS, **REFUSALS_OF_ACCESS}
        for status, description in refusals.items():
            operation["responses"].setdefault(status, {"description": description})

    def _add_error(self, response: dict[str, Any]) -> None:
        """The body that all errors have, with the description for a message if it shows none."""
        body = response.setdefault("content", {}).setdefault("application/json", {})
        body.setdefault("schema", {"$ref": f"#/components/schemas/{self._api.error}"})
        if "example" not in body:
            body["example"] = json.loads(self._api.error_body(None, response["description"]))


async def _ui_page(_: web.Request) -> web.Response:
    return web.Response(text=_UI_PAGE, content_type="text/html")


async def _ui_start(_: web.Request) -> web.Response:
    return web.Response(text=_UI_START, content_type="text/javascript")


async def _to_ui(_: web.Request) -> web.Response:
    raise web.HTTPFound(UI_PATH)


def _library_folder() -> Path:
    """Where aiohttp-swagger3 is, which brings the files of the UI; without importing it."""
    spec = importlib.util.find_spec("aiohttp_swagger3")
    if spec is None or spec.origin is None:
        raise ImportError("aiohttp-swagger3 is not installed")
    return Path(spec.origin).parent
