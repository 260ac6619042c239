"""Accessibility (axe-core) and width of all views, in both themes, on desktop and phone."""

from pathlib import Path

import axe_playwright_python
import pytest
from playwright.async_api import Page, expect

from browsing import DESK, PHONE, Gate, OpenPage, StartService, submit
from harness import Portal, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()


async def check_accessibility(page: Page) -> None:
    """Check that a page violates no rule of axe-core and needs no horizontal scrolling."""
    # Evaluated by the debugger, to which the content security policy does not apply.
    await page.evaluate(AXE)
    result = await page.evaluate("axe.run({resultTypes: ['violations']})")
    assert [
        (violation["id"], node["html"], node["failureSummary"])
        for violation in result["violations"]
        for node in violation["nodes"]
    ] == []
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(("scheme", "size"), [("light", DESK), ("dark", PHONE)])
async def test_every_view_is_accessible(
    server: Service,
    portal: Portal,
    open_page: OpenPage,
    gate: Gate,
    scheme: str,
    size: dict[str, int],
) -> None:
    running = await submit(server.url, gate.script(before="seq 200"), user_id="20", tag="a tag")
    failed = await submit(
        server.url, "echo no >&2; exit 1\n", user_id="20", name="A long name " * 12
    )
    await portal.end_of(failed)
    await portal.until(running, "Running")
    page = await open_page(server, color_scheme=scheme, viewport=size)
    await expect(page.locator(".job-table")).to_be_visible()
    await expect(page.locator(".client .badge")).to_have_text("Connected")
    await page.locator("summary").first.click()
    await check_accessibility(page)
    await page.goto(f"{server.url}/dashboard/#/?tag=nothing")
    await expect(page.get_by_text("No job matches")).to_be_visible()
    await check_accessibility(page)
    await page.goto(f"{server.url}/dashboard/#/jobs/{failed}")
    await expect(page.locator(".file-table")).to_be_visible()
    await check_accessibility(page)
    await page.goto(f"{server.url}/dashboard/#/jobs/{running}")
    await expect(page.locator(".log").first).to_contain_text("200")
    await check_accessibility(page)
    await page.get_by_role("button", name="Cancel job").click()
    await check_accessibility(page)
    queued = [await submit(server.url, gate.script(), user_id="20") for _ in range(2)][1]
    await page.goto(f"{server.url}/dashboard/#/jobs/{queued}")
    await expect(page.get_by_role("meter", name="Service example")).to_be_visible()
    await check_accessibility(page)
    await page.get_by_role("button", name="Priority").click()
    await check_accessibility(page)
    await page.keyboard.press("Escape")
    await page.goto(f"{server.url}/dashboard/#/jobs/999999")
    await expect(page.locator("h1")).to_have_text("Job 999999 not found in the database")
    await check_accessibility(page)
    gate.open()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_views_of_a_fresh_and_of_a_stopped_server_are_accessible(
    start_service: StartService, open_page: OpenPage, tmp_path: Path, scheme: str
) -> None:
    settings = {
        "SERVICE_EXAMPLE_UPLOAD_URL": "http://127.0.0.1:9/submit",
        "SERVICE_EXAMPLE_DOWNLOAD_URL": "http://127.0.0.1:9/retrieve",
    }
    server = await start_service("jo-server", **settings)
    page = await open_page(server, color_scheme=scheme)
    await expect(page.get_by_text("No jobs yet")).to_be_visible()
    await expect(page.locator(".client .badge")).to_have_text("Unreachable")
    await check_accessibility(page)
    await server.end()
    await expect(page.locator(".banner")).to_be_visible()
    await check_accessibility(page)
    (tmp_path / "tokens").touch(mode=0o600)
    server = await start_service("jo-server", API_TOKENS_FILE=str(tmp_path / "tokens"), **settings)
    page = await open_page(server, color_scheme=scheme)
    await expect(page.get_by_label("Token")).to_be_focused()
    await check_accessibility(page)
