"""The OpenAPI document and Swagger UI of a service; the only module that uses aiohttp-swagger3.

The operations are in YAML files next to the handlers, as in the ``paths`` of an OpenAPI document.
An error needs only a status and a description there.

The library only provides the files of the UI and is not imported. Its validation of requests would
read upload bodies into memory, and its check of the document would compile a schema into 10 MB of
code in each service; tests check the document. It is built at the first request for it.
"""

import asyncio
import importlib.util
import json
import re
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
        "required": ["version", "status", "database"],
        "properties": {
            "version": {"type": "string"},
            "status": {"type": "string"},
            "database": {"type": "string"},
        },
        "example": {"version": "0.1.0", "status": "healthy", "database": "ok"},
    },
    "Pong": {
        "type": "object",
        "required": ["message", "api"],
        "properties": {
            "message": {"type": "string"},
            "dashboard": {"type": "string", "description": "Path of the dashboard, if it has one"},
            "api": {"type": "string", "description": "Path of the Swagger UI"},
        },
        "example": {"message": "pong", "api": "/swagger-ui/"},
    },
}
"""Schemas of the answers that every service gives."""

CONTACT = {"name": "The authors of job-orchestrator"}
LICENSE = {"name": "MIT", "url": "https://opensource.org/license/mit"}

HEAD = "HEAD requests are answered wherever GET requests are, with the same headers."

REFUSALS: Mapping[str, str] = {
    "400": "A part of the path, the query or the body is invalid; the message says which",
    "413": "The body is too large",
    "415": "The body has a Content-Encoding; send it without one",
    "421": "The host name is not one of this service; see ALLOWED_HOSTS",
}
"""Errors that every route may answer."""

REFUSALS_OF_ACCESS: Mapping[str, str] = {
    "401": "A token is required; the request has none, or one that is not valid",
    "403": "The token does not allow this, or a web page of another origin sent it",
}
"""Errors that every route may answer that requires a token."""

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

# Without the null, the UI sends the document to a public validator on another host.
_UI_START = """SwaggerUIBundle({
  "url": "../api-docs/openapi.json",
  "dom_id": "#swagger-ui",
  "deepLinking": true,
  "validatorUrl": null
});
"""


@dataclass(frozen=True)
class Api:
    """Contents of the document.

    ``operations`` is a folder of YAML files, ``tags`` describes their tags. ``schemas``, with those
    of the answers that every service gives, become ``components/schemas``. ``error`` is the name of
    the schema of errors, and ``error_body`` builds their bodies. ``is_open`` returns whether a path
    requires no token.
    """

    title: str
    version: str
    description: str
    operations: Path
    tags: Mapping[str, str]
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


def template_of(path: str) -> str:
    """Return a path of aiohttp as a template of OpenAPI, which has no patterns: ``{name}``."""
    return re.sub(r"\{(\w+):[^{}]*\}", r"{\1}", path)


class _Document:
    """Document of ``routes``, encoded. It is kept from the first request on."""

    def __init__(self, routes: list[web.RouteDef], api: Api) -> None:
        self._routes = routes
        self._api = api
        self._building = asyncio.Lock()
        self._encoded: bytes | None = None

    async def answer(self, _: web.Request) -> web.Response:
        """Answer ``GET DOCUMENT_PATH``."""
        async with self._building:
            if self._encoded is None:
                self._encoded = await in_thread(self._build_and_release)
        return web.Response(body=self._encoded, content_type="application/json")

    def _build_and_release(self) -> bytes:
        with release_memory_afterwards():
            return self._build()

    def _build(self) -> bytes:
        schemas = {**self._api.schemas, **SERVICE_SCHEMAS}
        paths: dict[str, dict[str, Any]] = {}
        operations = read_operations(self._api.operations)
        for route in self._routes:
            path = template_of(route.path)
            operation = operations[route.method, path]
            operation.setdefault("description", f"{operation['summary']}.")
            self._add_refusals(path, operation)
            for status, response in operation["responses"].items():
                if status >= "400":
                    self._add_error(response)
            paths.setdefault(path, {})[route.method.lower()] = operation
        document = {
            "openapi": "3.0.0",
            "info": {
                "title": self._api.title,
                "version": self._api.version,
                "description": f"{self._api.description} {HEAD}",
                "license": LICENSE,
                "contact": CONTACT,
            },
            "paths": paths,
            "components": {
                "schemas": schemas,
                "parameters": log_query.PARAMETERS,
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            },
            "servers": [{"url": "/"}],
            "tags": [{"name": name, "description": text} for name, text in self._api.tags.items()],
            # With and without, because settings decide whether a token is required.
            "security": [{}, {"token": []}],
        }
        _add_types(document, schemas)
        return json.dumps(document).encode() + b"\n"

    def _add_refusals(self, path: str, operation: dict[str, Any]) -> None:
        """Add the errors that every route may answer, unless the operation describes them."""
        refusals = REFUSALS
        if self._api.is_open(path):
            operation["security"] = []
        else:
            refusals = {**REFUSALS, **REFUSALS_OF_ACCESS}
        for status, description in refusals.items():
            operation["responses"].setdefault(status, {"description": description})

    def _add_error(self, response: dict[str, Any]) -> None:
        """Add the body of errors, with the description as its message if there is no example."""
        body = response.setdefault("content", {}).setdefault("application/json", {})
        body.setdefault("schema", {"$ref": f"#/components/schemas/{self._api.error}"})
        if "example" not in body:
            body["example"] = json.loads(self._api.error_body(None, None, response["description"]))


def _add_types(part: Any, schemas: Mapping[str, Any]) -> None:
    """Add the type to references that may be null: OpenAPI 3.0.3 requires it next to nullable."""
    if isinstance(part, list):
        for each in part:
            _add_types(each, schemas)
    elif isinstance(part, dict):
        if part.get("nullable") is True and "allOf" in part:
            name = part["allOf"][0]["$ref"].rpartition("/")[2]
            part["type"] = schemas[name].get("type", "string")  # those of enumerations have none
        for each in part.values():
            _add_types(each, schemas)


def read_operations(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Read the operations in the YAML files of ``folder``, by method and path."""
    import yaml

    found: dict[tuple[str, str], dict[str, Any]] = {}
    for file in folder.glob("*.yaml"):
        for path, methods in yaml.safe_load(file.read_text("utf-8")).items():
            for method, operation in methods.items():
                found[method.upper(), path] = operation
    return found


async def _ui_page(_: web.Request) -> web.Response:
    return web.Response(text=_UI_PAGE, content_type="text/html")


async def _ui_start(_: web.Request) -> web.Response:
    return web.Response(text=_UI_START, content_type="text/javascript")


async def _to_ui(_: web.Request) -> web.Response:
    raise web.HTTPFound(UI_PATH)


def _library_folder() -> Path:
    """Return the folder of aiohttp-swagger3, with the files of the UI, without importing it."""
    spec = importlib.util.find_spec("aiohttp_swagger3")
    if spec is None or spec.origin is None:
        raise ImportError("aiohttp-swagger3 is not installed")
    return Path(spec.origin).parent
