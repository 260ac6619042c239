"""Files of the dashboard and their headers."""

import re
from importlib.resources import files

from yarl import URL

from running_server import Server

FILES = {
    file.name: file.read_text()
    for file in (files("job_orchestrator.server") / "dashboard").iterdir()
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


async def test_files_are_served_with_their_type_and_a_strict_policy(idle_server: Server) -> None:
    kinds = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    for name in ["", *FILES]:
        async with idle_server.http.get(f"/dashboard/{name}") as response:
            assert response.status == 200
            assert await response.text() == FILES[name or "index.html"]
            assert response.content_type == kinds.get(name.rpartition(".")[2], "text/html")
            assert response.charset == "utf-8"
            assert response.headers["Content-Security-Policy"] == POLICY
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Referrer-Policy"] == "no-referrer"
            assert response.headers["Cache-Control"] == "no-cache"


async def test_file_that_the_browser_has_is_a_304(idle_server: Server) -> None:
    async with idle_server.http.get("/dashboard/app.js") as response:
        etag = response.headers["ETag"]
    known = {"If-None-Match": f'"other", {etag}'}
    async with idle_server.http.get("/dashboard/app.js", headers=known) as response:
        assert response.status == 304
        assert await response.read() == b""
        assert response.headers["ETag"] == etag
    async with idle_server.http.get(
        "/dashboard/base.css", headers={"If-None-Match": etag}
    ) as response:
        assert response.status == 200


async def test_path_without_the_slash_redirects_to_the_dashboard(idle_server: Server) -> None:
    async with idle_server.http.get("/dashboard") as response:
        assert response.url.path == "/dashboard/"
        assert response.status == 200


async def test_unknown_file_is_404(idle_server: Server) -> None:
    for name in ("nothing.js", "..%2Fapp.py", "%2E%2E%2Fkeys.py"):
        url = URL(f"/dashboard/{name}", encoded=True)
        async with idle_server.http.get(url) as response:
            assert response.status == 404
            assert (await response.json())["id"] == 0


def test_files_name_no_other_host() -> None:
    for name, text in FILES.items():
        found = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text)) - {"http://www.w3.org"}
        assert not found, name


def test_no_file_can_turn_text_of_the_server_into_markup() -> None:
    ways = re.compile(
        r"\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval|srcdoc)\b ?[(=]"
    )
    for name, text in FILES.items():
        assert not ways.search(text), name


def test_imported_modules_exist_and_all_files_are_used() -> None:
    used = {"index.html"}
    for text in FILES.values():
        used |= set(re.findall(r'(?:from "\./|(?:href|src)=")([\w-]+\.(?:js|css|svg))"', text))
    assert used == set(FILES)
