"""The example portals work with a real server, and the example page in a real browser."""

import asyncio
import io
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import aiohttp_portal
import flask_portal
import pytest
from aiohttp.test_utils import TestClient, TestServer
from playwright.async_api import async_playwright, expect

from harness import Service, StartClient, StartServer

CHROMIUM = Path("/usr/bin/chromium")
PORTALS = Path(__file__).parents[1] / "examples" / "portals"
TEXT = b"three small words\n"


def counted(body: bytes) -> str:
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        return archive.read("counts.txt").decode().strip()


async def test_flask_portal_accepts_a_file_shows_its_job_and_serves_the_results(
    server: Service,
) -> None:
    visitor = flask_portal.create_app(server.url).test_client()

    def visit() -> None:
        assert b"<form" in visitor.get("/").data
        text = (io.BytesIO(TEXT), "text.txt")
        page = visitor.post("/jobs", data={"text": text}, follow_redirects=True)
        assert b"Job 1 is Completed" in page.data
        with visitor.get("/jobs/1/results") as results:
            assert counted(results.data).split()[:3] == ["1", "3", "18"]
        assert visitor.get("/jobs/7").status_code == 404

    await asyncio.to_thread(visit)


async def test_aiohttp_portal_forwards_states_and_results(server: Service) -> None:
    app = aiohttp_portal.create_app(server.url)
    async with TestClient(TestServer(app)) as visitor:
        for _ in range(2):
            answer = await visitor.post("/jobs", data=TEXT, headers={"Idempotency-Key": "form-1"})
            assert (answer.status, (await answer.json())["id"]) == (201, 1)
        events = await (await visitor.get("/jobs/1/events")).text()
        assert events.rstrip().rpartition("data: ")[2].find('"status":"Completed"') > 0
        body = await (await visitor.get("/jobs/1/results")).read()
        assert counted(body).split()[:3] == ["1", "3", "18"]
        assert (await visitor.get("/jobs/7/events")).status == 404


@pytest.fixture
def page_url() -> Iterator[str]:
    """URL of the example page, which has another origin than the server."""
    handler = partial(_SilentHandler, directory=str(PORTALS / "browser"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as pages:
        thread = threading.Thread(target=pages.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{pages.server_port}"
        pages.shutdown()
        thread.join()


class _SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs chromium")
async def test_page_in_a_browser_submits_a_job_and_sees_its_end(
    start_client: StartClient, start_server: StartServer, page_url: str
) -> None:
    server = await start_server(await start_client(), CORS_ORIGINS=page_url)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = await browser.new_page()
        await page.goto(f"{page_url}/?server={server.url}")
        await page.get_by_label("Text").set_input_files(
            {"name": "text.txt", "mimeType": "text/plain", "buffer": TEXT}
        )
        await page.get_by_role("button", name="Count").click()
        await expect(page.locator("#state")).to_have_text("job 1 is Completed", timeout=60_000)
        async with page.expect_download() as downloading:
            await page.get_by_role("link", name="Results").click()
        archive = await (await downloading.value).path()
        assert counted(archive.read_bytes()).split()[:3] == ["1", "3", "18"]
        await browser.close()
