"""Writes the OpenAPI documents of both services to docs/openapi/, for reviews and releases.

.venv/bin/python scripts/openapi_documents.py
"""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import hdrs, web
from aiohttp.test_utils import make_mocked_request

from job_orchestrator.client import app as client
from job_orchestrator.client.settings import read_settings as read_client_settings
from job_orchestrator.common.web.openapi import DOCUMENT_PATH
from job_orchestrator.server import app as server
from job_orchestrator.server.settings.server import read_settings as read_server_settings

FOLDER = Path(__file__).parents[1] / "docs" / "openapi"

_SERVICE = {
    "SERVICE_EXAMPLE_UPLOAD_URL": "http://localhost:9000",
    "SERVICE_EXAMPLE_DOWNLOAD_URL": "http://localhost:9000",
}


def documents() -> Mapping[str, Any]:
    """Return the document of each service, by the name of its command."""
    return {
        "jo-server": _document_of(server.create_app(read_server_settings(_SERVICE, {}))),
        "jo-client": _document_of(client.create_app(read_client_settings({}, {}))),
    }


def _document_of(app: web.Application) -> Any:
    """Return the document that an application answers, without starting it."""
    request = make_mocked_request(hdrs.METH_GET, DOCUMENT_PATH)
    for route in app.router.routes():
        resource = route.resource
        if resource is not None and resource.canonical == DOCUMENT_PATH:
            answer: Any = route.handler
            response: web.Response = asyncio.run(answer(request))
            return json.loads(response.text or "")
    raise LookupError(f"nothing is at {DOCUMENT_PATH}")


def text_of(document: Any) -> str:
    """Return a document as it is stored: in lines, so that a review shows what changes."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the documents."""
    FOLDER.mkdir(exist_ok=True)
    for name, document in documents().items():
        (FOLDER / f"{name}.json").write_text(text_of(document), "utf-8")


if __name__ == "__main__":
    main()
