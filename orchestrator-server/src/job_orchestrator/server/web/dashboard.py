"""The dashboard at /dashboard/: static files that use the same API as every portal.

The files are read once, at the start. They contain no secret, so everybody may read them; access to
jobs is checked by the API. The content security policy keeps the page from running or fetching
anything that does not come from this server, regardless of the contents of names, files and output.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePosixPath

from aiohttp import ETag, web

PATH = "/dashboard/"
INDEX = "index.html"

CONTENT_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Browsers revalidate the files at every visit, which the ETag makes cheap. So no browser mixes
    # old and new files after an update of the server.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class Asset:
    """One file of the dashboard."""

    body: bytes
    content_type: str
    etag: str


class Dashboard:
    """Serves the files. The constructor reads them, which blocks."""

    def __init__(self) -> None:
        self._assets = _read_assets()

    def routes(self) -> list[web.RouteDef]:
        """Return the routes. They are not part of the API and its document."""
        return [
            web.get(PATH.rstrip("/"), self._to_index),
            web.get(PATH, self._serve),
            web.get(PATH + "{name}", self._serve),
        ]

    async def _to_index(self, _: web.Request) -> web.Response:
        # Relative, so that it also works behind a proxy that adds a prefix.
        return web.Response(status=308, headers={"Location": "dashboard/"})

    async def _serve(self, request: web.Request) -> web.Response:
        """Answer with the file, or with 304 if the copy of the browser is current."""
        asset = self._assets.get(request.match_info.get("name", INDEX))
        if asset is None:
            raise web.HTTPNotFound
        known = request.if_none_match or ()
        if any(tag.value in (asset.etag, "*") for tag in known):
            response = web.Response(status=304, headers=HEADERS)
        else:
            response = web.Response(
                body=asset.body,
                headers=HEADERS,
                content_type=asset.content_type,
                charset="utf-8",
            )
        response.etag = ETag(asset.etag)
        return response


def _read_assets() -> Mapping[str, Asset]:
    assets = {}
    for file in (files("job_orchestrator.server") / "dashboard").iterdir():
        content_type = CONTENT_TYPES.get(PurePosixPath(file.name).suffix)
        if content_type is not None:
            body = file.read_bytes()
            etag = hashlib.sha256(body).hexdigest()[:32]
            assets[file.name] = Asset(body, content_type, etag)
    return assets
