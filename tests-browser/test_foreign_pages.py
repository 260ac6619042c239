"""Pages of other sites in a real browser, and pages whose host name is led to a service."""

import shutil
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from browsing import Gate, StartService, submit
from harness import Portal, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

EVIL = "evil.example"
FOREIGN_PAGE = f"http://{EVIL}:4711/"
NO_CLIENT = {
    "SERVICE_EXAMPLE_UPLOAD_URL": "http://127.0.0.1:9/submit",
    "SERVICE_EXAMPLE_DOWNLOAD_URL": "http://127.0.0.1:9/retrieve",
}

ATTEMPT = """async ([path, method]) => {
    const form = new FormData();
    form.append("user_id", "1");
    form.append("service", "example");
    form.append("file", new Blob(["touch ran\\n"]), "run.sh");
    const body = method === "POST" ? form : undefined;
    try {
        const response = await fetch(path, {method, body, mode: MODE});
        return [response.status, await response.text()];
    } catch (error) {
        return [-1, String(error)];
    }
}"""

FORM = """<form id="f" method="post" enctype="multipart/form-data" action="ACTION">
<textarea name="user_id">1</textarea><button>go</button></form>"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def misled_chromium() -> AsyncIterator[Browser]:
    """A browser for which the name evil.example has the address of this machine."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path,
            args=[
                "--no-sandbox",
                "--disable-dev-shm-usage",
                # Not all browsers have these protections of their own.
                "--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests",
                f"--host-resolver-rules=MAP {EVIL} 127.0.0.1",
            ],
        )
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def visited(misled_chromium: Browser) -> AsyncIterator[Any]:
    """Open a page of the attacker at a URL, with some contents."""
    context = await misled_chromium.new_context()

    async def visit(url: str, contents: str = "") -> Page:
        page = await context.new_page()
        await page.route(url, lambda route: route.fulfill(body=contents, content_type="text/html"))
        await page.goto(url)
        return page

    yield visit
    await context.close()


def port_of(service: Service) -> str:
    return service.url.rpartition(":")[2]


@pytest.mark.parametrize(
    ("name", "path", "method"),
    [
        ("jo-client", "/submit", "POST"),
        ("jo-client", "/payloads", "GET"),
        ("jo-server", "/upload", "POST"),
        ("jo-server", "/jobs", "GET"),
    ],
)
async def test_page_of_a_rebound_name_can_neither_read_nor_do_anything(
    start_service: StartService,
    http: aiohttp.ClientSession,
    visited: Any,
    name: str,
    path: str,
    method: str,
) -> None:
    service = await start_service(name, **(NO_CLIENT if name == "jo-server" else {}))
    page = await visited(f"http://{EVIL}:{port_of(service)}/attack")
    status, message = await page.evaluate(ATTEMPT.replace("MODE", '"cors"'), [path, method])
    assert status == 421
    assert "ALLOWED_HOSTS" in message
    kept = "/payloads" if name == "jo-client" else "/jobs"
    async with http.get(f"{service.url}{kept}") as response:
        assert await response.json() in ([], {"jobs": [], "next": None})


async def test_name_in_allowed_hosts_is_served_to_the_browser(
    start_service: StartService, visited: Any
) -> None:
    service = await start_service("jo-server", ALLOWED_HOSTS=EVIL, **NO_CLIENT)
    page = await visited(f"http://{EVIL}:{port_of(service)}/page")
    status, _ = await page.evaluate(ATTEMPT.replace("MODE", '"cors"'), ["/upload", "POST"])
    assert status == 201


async def test_page_of_another_origin_submits_and_ends_no_job(
    server: Service, portal: Portal, http: aiohttp.ClientSession, visited: Any, gate: Gate
) -> None:
    job = await submit(server.url, gate.script(), user_id="69")
    await portal.until(job, "Running")
    page = await visited(FOREIGN_PAGE, FORM.replace("ACTION", f"{server.url}/terminate/{job}"))
    for path in (f"/terminate/{job}", "/upload"):
        for mode in ('"no-cors"', '"cors"'):
            attempt = ATTEMPT.replace("MODE", mode)
            status, message = await page.evaluate(attempt, [f"{server.url}{path}", "POST"])
            assert (status, message) == (0, "") if mode == '"no-cors"' else status == -1
    await page.click("button")
    assert "Cross-origin requests are not allowed" in await page.inner_text("body")
    async with http.get(f"{server.url}/jobs", params={"user_id": "69"}) as response:
        assert [found["id"] for found in (await response.json())["jobs"]] == [job]
    assert (await portal.state(job))["status"] == "Running"
    gate.open()
    assert (await portal.end_of(job))["status"] == "Completed"
