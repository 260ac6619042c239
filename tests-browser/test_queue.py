"""Limits, pauses and queued jobs in the dashboard, in a real browser."""

import asyncio
from pathlib import Path

import aiohttp
import pytest
from playwright.async_api import expect

from browsing import Gate, OpenPage, StartService, submit
from harness import BIN, Portal, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")


def card(heading: str) -> str:
    """Return a locator of a card by its heading."""
    return f'section.card:has(h2:text-is("{heading}"))'


async def test_administrator_pauses_and_resumes_a_service(
    start_server: StartService, http: aiohttp.ClientSession, open_page: OpenPage
) -> None:
    server = await start_server()
    portal = Portal(server.url, http)
    page = await open_page(server)
    await page.get_by_role("button", name="Pause example").click()
    await expect(page.locator(".service .badge")).to_have_text("Paused")
    job = await submit(server.url, "true")
    await page.goto(f"{server.url}/dashboard/#/jobs/{job}")
    callout = page.locator(".callout")
    await expect(callout).to_contain_text("An administrator has paused the service example")
    await page.goto(f"{server.url}/dashboard/#/")
    await page.get_by_role("button", name="Resume example").click()
    await portal.end_of(job)
    await expect(page.locator(".service .badge")).to_have_text("OK")


async def test_administrator_pauses_and_resumes_a_user(
    server: Service, portal: Portal, open_page: OpenPage
) -> None:
    page = await open_page(server)
    form = page.get_by_role("form", name="Pause a user")
    await form.get_by_role("textbox").fill("41")
    await form.get_by_role("button").click()
    await expect(page.get_by_text("User 41 is paused")).to_be_visible()
    job = await submit(server.url, "true", user_id="41")
    assert (await portal.state(job))["status"] == "Queued"
    await page.get_by_role("button", name="Resume user 41").click()
    await expect(page.get_by_text("User 41 is paused")).to_be_hidden()
    await portal.end_of(job)


async def test_queued_job_is_held_released_and_moved(
    server: Service, portal: Portal, open_page: OpenPage, gate: Gate
) -> None:
    jobs = [await submit(server.url, gate.script(), user_id="42") for _ in range(4)]
    await portal.until(jobs[1], "Running")
    page = await open_page(server, f"#/jobs/{jobs[3]}")
    callout = page.locator(".callout")
    await expect(callout).to_contain_text("1 job of this user is ahead")
    await page.get_by_role("button", name="Priority").click()
    dialog = page.get_by_role("dialog", name=f"Priority of job {jobs[3]}")
    await dialog.get_by_label("Priority").fill("7")
    await dialog.get_by_role("button", name="Change").click()
    await expect(dialog).to_be_hidden()
    await expect(callout).to_contain_text("Next in line")
    await page.get_by_role("button", name="Hold").click()
    await expect(callout).to_contain_text("It is on hold until it is released")
    gate.open()
    await portal.end_of(jobs[2])
    assert (await portal.state(jobs[3]))["status"] == "Queued"
    await page.get_by_role("button", name="Release").click()
    await expect(page.locator(".job-state")).to_have_text("Completed")
    await expect(page.get_by_role("button", name="Hold")).to_be_hidden()


async def test_administrator_sees_which_limit_holds_a_job(
    server: Service, portal: Portal, open_page: OpenPage, gate: Gate
) -> None:
    jobs = [await submit(server.url, gate.script(), user_id="43") for _ in range(3)]
    await portal.until(jobs[1], "Running")
    page = await open_page(server, f"#/jobs/{jobs[2]}")
    await expect(page.locator(".callout")).to_contain_text(
        "2 of this user's jobs are active, of at most 2"
    )
    why = page.locator(card("Why it waits"))
    await expect(why).to_contain_text("2 of 2 active")
    await expect(why.get_by_role("meter", name="Service example")).to_be_visible()
    await expect(why.locator(".row-title")).to_have_count(1)
    gate.open()
    await expect(page.locator(".job-state")).to_have_text("Completed")
    await expect(why).to_be_hidden()


async def test_user_sees_own_limits_and_no_controls_of_administrators(
    start_server: StartService,
    http: aiohttp.ClientSession,
    open_page: OpenPage,
    tmp_path: Path,
    gate: Gate,
) -> None:
    file = tmp_path / "tokens"
    process = await asyncio.create_subprocess_exec(
        BIN / "jo-server",
        "token",
        "create",
        "--user",
        "7",
        env={"API_TOKENS_FILE": str(file)},
        stdout=asyncio.subprocess.PIPE,
    )
    token = (await process.communicate())[0].decode().strip()
    server = await start_server(API_TOKENS_FILE=str(file), MAX_RUNS_PER_USER="5", JOBS_PER_HOUR="3")
    form = aiohttp.FormData({"user_id": "7", "service": "example"}, quote_fields=False)
    form.add_field("file", gate.script().encode(), filename="run.sh")
    header = {"Authorization": f"Bearer {token}"}
    async with http.post(f"{server.url}/upload", data=form, headers=header) as response:
        assert response.status == 201, await response.text()
    page = await open_page(server)
    await page.get_by_label("Token").fill(token)
    await page.keyboard.press("Enter")
    limits = page.locator(card("Your limits"))
    await expect(limits.get_by_role("meter", name="example")).to_have_attribute(
        "aria-valuetext", "1 of 2 active"
    )
    await expect(limits.get_by_role("meter", name="All services")).to_have_attribute(
        "aria-valuetext", "1 of 5 active"
    )
    await expect(limits.get_by_role("meter", name="Started or sent")).to_have_attribute(
        "aria-valuetext", "1 of 3 used"
    )
    await expect(page.get_by_role("button", name="Pause")).to_have_count(0)
    gate.open()
