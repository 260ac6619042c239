"""The dashboard in a real browser, with a real server and a real client."""

import asyncio
import re
import zipfile
from pathlib import Path

import aiohttp
import pytest
from playwright.async_api import Locator, Page, expect

from browsing import Gate, OpenPage, StartService, submit
from harness import BIN, Portal, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOSTILE = "<img src=x onerror=alert(1)>"


def row(page: Page, job: int) -> Locator:
    """Locate the row of a job in the list."""
    return page.locator("tr", has=page.locator(f'a[href="#/jobs/{job}"]'))


async def test_job_is_followed_from_its_submission_to_its_results(
    server: Service, portal: Portal, open_page: OpenPage, gate: Gate, tmp_path: Path
) -> None:
    page = await open_page(server, "#/?user=10")
    await expect(page.locator("#live")).to_have_text("Live")
    script = gate.script(before="echo begun", after="echo over >&2; mkdir d; echo x > d/made")
    job = await submit(server.url, script, user_id="10", name="My first job")
    await expect(row(page, job)).to_contain_text("Running")
    await page.get_by_role("link", name="My first job").click()
    await expect(page.locator("h1")).to_have_text(f"My first job#{job}")
    await expect(page.get_by_role("region", name="stdout of the job")).to_have_text("begun\n")
    gate.open()
    await expect(page.locator(".job-state")).to_have_text("Completed")
    await page.get_by_role("tab", name="stderr").click()
    await expect(page.get_by_role("region", name="stderr of the job")).to_have_text("over\n")
    await expect(page.get_by_role("row", name="d/made 2 B")).to_be_visible()
    states = page.locator(".timeline strong")
    await expect(states).to_have_text(["Queued", "Processing", "Submitted", "Running", "Completed"])
    async with page.expect_download() as download:
        await page.get_by_role("link", name="Download results").click()
    await (await download.value).save_as(tmp_path / "results.zip")
    with zipfile.ZipFile(tmp_path / "results.zip") as results:
        assert results.read("d/made") == b"x\n"


async def test_job_is_cancelled_once_that_is_confirmed(
    server: Service, portal: Portal, open_page: OpenPage, gate: Gate
) -> None:
    job = await submit(server.url, gate.script(before="echo half"), user_id="11")
    await portal.until(job, "Running")
    page = await open_page(server, f"#/jobs/{job}")
    button = page.get_by_role("button", name="Cancel job")
    await button.click()
    dialog = page.get_by_role("dialog", name=f"Cancel job {job}?")
    await expect(dialog.get_by_role("button", name="Keep it")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(button).to_be_focused()
    assert (await portal.state(job))["status"] == "Running"
    await button.click()
    await dialog.get_by_role("button", name="Cancel the job").click()
    await expect(page.locator(".job-state")).to_have_text("Killed")
    await expect(page.locator("h1")).to_be_focused()
    await expect(button).to_be_hidden()
    assert (await portal.state(job))["status"] == "Killed"
    # The output is fetched after the end of the job.
    await expect(page.get_by_role("link", name="Download output")).to_be_visible()


async def test_queued_job_shows_its_position_and_starts_without_a_reload(
    server: Service, portal: Portal, open_page: OpenPage, gate: Gate
) -> None:
    jobs = [await submit(server.url, gate.script(), user_id="12") for _ in range(4)]
    await portal.until(jobs[1], "Running")
    page = await open_page(server, f"#/jobs/{jobs[3]}")
    await expect(page.locator(".callout")).to_contain_text("1 job of this user is ahead")
    gate.open()
    await expect(page.locator(".job-state")).to_have_text("Completed")


async def test_job_after_another_one_names_it_and_starts_without_a_reload(
    server: Service, portal: Portal, open_page: OpenPage, gate: Gate
) -> None:
    first = await submit(server.url, gate.script(), user_id="17")
    job = await submit(server.url, "true", user_id="17", after=str(first))
    page = await open_page(server, f"#/jobs/{job}")
    await expect(page.locator(".callout")).to_contain_text(f"It waits for job {first}")
    await expect(page.locator(".callout")).not_to_contain_text("Next in line")
    link = page.locator(".details").get_by_role("link", name=str(first), exact=True)
    await expect(link).to_have_attribute("href", f"#/jobs/{first}")
    gate.open()
    await expect(page.locator(".job-state")).to_have_text("Completed")


async def test_texts_of_users_are_displayed_and_never_executed(
    server: Service, portal: Portal, open_page: OpenPage
) -> None:
    script = f"echo '{HOSTILE}'; echo '{HOSTILE}' >&2; echo x > '{HOSTILE}'; exit 1\n"
    job = await submit(server.url, script, user_id="13", name=f"n{HOSTILE}", tag=f"t{HOSTILE}")
    await portal.end_of(job)
    page = await open_page(server, "#/?user=13")
    await expect(row(page, job)).to_contain_text(f"n{HOSTILE}")
    await expect(row(page, job)).to_contain_text(f"t{HOSTILE}")
    await row(page, job).get_by_role("link").click()
    await expect(page.locator("h1")).to_contain_text(f"n{HOSTILE}")
    await expect(page.get_by_role("region", name="stdout of the job")).to_have_text(f"{HOSTILE}\n")
    await expect(page.get_by_role("row", name=f"{HOSTILE} 2 B")).to_be_visible()
    await page.get_by_role("tab", name="stderr").click()
    await expect(page.get_by_role("region", name="stderr of the job")).to_have_text(f"{HOSTILE}\n")
    assert await page.locator("img").count() == 1  # the logo next to the name


async def test_filters_and_pages_survive_reload_and_back(
    server: Service, portal: Portal, open_page: OpenPage
) -> None:
    jobs = [await submit(server.url, "exit 0\n", user_id="14", tag="many") for _ in range(27)]
    odd = await submit(server.url, "exit 3\n", user_id="14", tag="odd")
    await portal.end_of(odd)
    await portal.end_of(jobs[-1])
    page = await open_page(server)
    rows = page.locator(".job-table tbody tr")
    await page.get_by_role("searchbox", name="User").fill("14")
    await expect(page).to_have_url(re.compile(r"user=14$"))
    await expect(rows).to_have_count(25)
    await expect(row(page, odd)).to_contain_text("run.sh exited with code 3")
    await page.get_by_role("link", name="Older").click()
    await expect(rows).to_have_count(3)
    await page.reload()
    await expect(rows).to_have_count(3)
    await page.go_back()
    await expect(rows).to_have_count(25)
    await page.get_by_role("button", name="Cancelled", exact=True).click()
    await expect(page.get_by_text("No job matches")).to_be_visible()
    await page.get_by_role("button", name="Failed", exact=True).click()
    await expect(rows).to_have_count(1)
    await rows.get_by_role("link").click()
    await expect(page.locator("h1")).to_have_text(f"Job {odd}")
    await page.get_by_role("link", name="Overview").click()
    await expect(rows).to_have_count(1)
    await page.get_by_label("Tag").fill("many")
    await expect(page.get_by_text("No job matches")).to_be_visible()
    await page.get_by_role("button", name="Clear filters").first.click()
    await expect(rows).to_have_count(25)
    assert page.url == f"{server.url}/dashboard/#/"


async def test_long_output_is_shown_from_its_end_and_bounded(
    server: Service, portal: Portal, open_page: OpenPage
) -> None:
    script = "seq -f 'line %06.0f' 60000; printf '1 %%\\r50 %%\\r100 %%\\033[32m done\\033[0m\\n'\n"
    job = await submit(server.url, script, user_id="15")
    await portal.end_of(job)
    page = await open_page(server, f"#/jobs/{job}")
    output = page.get_by_role("region", name="stdout of the job")
    await expect(output).to_have_text(re.compile(r"line 059999\nline 060000\n100 % done\n$"))
    assert len(await output.inner_text()) <= 262_144
    await expect(page.get_by_text("Only the last 262 kB are shown")).to_be_visible()
    async with page.expect_download() as download:
        await page.get_by_role("link", name="Download all of it").click()
    path = await (await download.value).path()
    assert (await asyncio.to_thread(path.read_bytes)).count(b"\n") == 60_001


async def test_suggested_commands_submit_a_job_and_the_page_reconnects(
    start_server: StartService, open_page: OpenPage, tmp_path: Path
) -> None:
    server = await start_server()
    page = await open_page(server)
    commands = await page.get_by_role("region", name="Commands that submit a job").inner_text()
    process = await asyncio.create_subprocess_exec("bash", "-ec", commands, cwd=tmp_path)
    assert await process.wait() == 0
    await expect(row(page, 1)).to_contain_text("Completed")
    await server.end()
    await expect(page.get_by_role("alert")).to_contain_text("No connection to jo-server")
    await expect(page.locator("#live")).to_have_text("Disconnected")
    await server.start()
    await submit(server.url, "exit 0\n")
    # In one step: when the page reconnects by itself, the button disappears.
    await page.evaluate("document.querySelector('.banner button')?.click()")
    await expect(page.locator("#live")).to_have_text("Live")
    await expect(page.locator(".banner")).to_be_hidden()
    # Changes during the disconnection are shown, too.
    await expect(row(page, 2)).to_contain_text("Completed")


async def test_token_shows_the_jobs_of_its_user_and_no_others(
    start_server: StartService, open_page: OpenPage, tmp_path: Path
) -> None:
    file = tmp_path / "tokens"
    tokens = {user: await _token(file, user) for user in ("7", "8")}
    server = await start_server(API_TOKENS_FILE=str(file))
    jobs = {}
    async with aiohttp.ClientSession() as http:
        for user, token in tokens.items():
            form = aiohttp.FormData({"user_id": user, "service": "example"})
            form.add_field("file", b"echo mine\n", filename="run.sh")
            header = {"Authorization": f"Bearer {token}"}
            url = f"{server.url}/upload"
            async with http.post(url, data=form, headers=header) as response:
                jobs[user] = (await response.json())["id"]
    page = await open_page(server)
    await page.get_by_label("Token").fill("jo_wrong")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("This token is not known")).to_be_visible()
    await page.get_by_label("Token").fill(tokens["7"])
    await page.keyboard.press("Enter")
    await expect(page.locator("#account")).to_contain_text("User 7")
    await expect(row(page, jobs["7"])).to_contain_text("Completed")
    assert await page.locator(".job-table tbody tr").count() == 1
    await row(page, jobs["7"]).get_by_role("link").click()
    await expect(page.get_by_role("region", name="stdout of the job")).to_have_text("mine\n")
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Download results").click()
    with zipfile.ZipFile(await (await download.value).path()) as results:
        assert results.read(".orchestrator/stdout.txt") == b"mine\n"
    await page.goto(f"{server.url}/dashboard/#/jobs/{jobs['8']}")
    await expect(page.locator("h1")).to_have_text(f"Job {jobs['8']} not found in the database")
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_label("Token")).to_be_focused()


async def _token(file: Path, user: str) -> str:
    process = await asyncio.create_subprocess_exec(
        BIN / "jo-server",
        "token",
        "create",
        "--user",
        user,
        env={"API_TOKENS_FILE": str(file)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    output, _ = await process.communicate()
    return output.decode().strip()


async def test_all_controls_are_reachable_with_the_keyboard(
    server: Service, portal: Portal, open_page: OpenPage
) -> None:
    job = await submit(server.url, "echo out; echo err >&2\n", user_id="16")
    await portal.end_of(job)
    page = await open_page(server, "#/?user=16")
    await expect(row(page, job)).to_be_visible()
    await page.locator("body").focus()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    link = row(page, job).get_by_role("link")
    for _ in range(60):
        await page.keyboard.press("Tab")
        if await link.evaluate("link => link === document.activeElement"):
            break
    await expect(link).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("h1")).to_be_focused()
    await page.get_by_role("tab", name="stdout").focus()
    await page.keyboard.press("ArrowRight")
    await expect(page.get_by_role("tab", name="stderr")).to_be_focused()
    await expect(page.get_by_role("region", name="stderr of the job")).to_have_text("err\n")


async def test_theme_follows_the_system_until_another_is_chosen(
    server: Service, open_page: OpenPage
) -> None:
    page = await open_page(server, color_scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    light = await page.evaluate(background)
    await page.get_by_role("button", name="Change to dark colours").click()
    dark = await page.evaluate(background)
    assert dark != light
    await page.reload()
    assert await page.evaluate(background) == dark
    await page.emulate_media(color_scheme="dark")
    await page.get_by_role("button", name="Change to light colours").click()
    assert await page.evaluate(background) == light
