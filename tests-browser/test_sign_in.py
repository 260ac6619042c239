"""Sign-in to the dashboard at an issuer, with a real provider of OpenID Connect."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import expect

from browsing import OpenPage, StartService

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def provider(http: aiohttp.ClientSession) -> AsyncIterator[str]:
    """Start a provider with two users, one of them of the group staff. Return its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    users = ('{"sub": "ada", "name": "Ada L."}', '{"sub": "root", "groups": ["staff"]}')
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "oidc_provider_mock", "--port", str(port), "--token-max-age", "600"),
        *(part for user in users for part in ("--user-claims", user)),
        stderr=asyncio.subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(60):
            while True:
                try:
                    async with http.get(f"{url}/.well-known/openid-configuration"):
                        break
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.1)
        yield url
    finally:
        process.terminate()
        await process.wait()


async def test_people_sign_in_at_the_issuer_and_see_what_is_theirs(
    provider: str, start_service: StartService, open_page: OpenPage
) -> None:
    server = await start_service(
        "jo-server",
        SERVICE_EXAMPLE_UPLOAD_URL="http://127.0.0.1:9/submit",
        SERVICE_EXAMPLE_DOWNLOAD_URL="http://127.0.0.1:9/retrieve",
        OIDC_ISSUERS=provider,
        OIDC_AUDIENCE="dashboard",
        OIDC_CLIENT_ID="dashboard",
        OIDC_CLIENT_SECRET="not-checked-by-this-provider",  # noqa: S106
        OIDC_NAME_CLAIM="name",
        OIDC_ADMIN_GROUPS="staff",
    )
    page = await open_page(server, other=provider)
    await page.get_by_role("button", name="Sign in at").click()
    await page.get_by_role("button", name="ada").click()
    await expect(page.locator("#account")).to_contain_text("Ada L.")
    await expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    assert "code=" not in page.url
    await page.reload()
    await expect(page.locator("#account")).to_contain_text("Ada L.")
    await page.get_by_role("button", name="Sign out").click()
    await page.get_by_role("button", name="Sign in at").click()
    await page.get_by_role("button", name="root").first.click()
    await expect(page.locator("#account")).to_contain_text("root")
    await expect(page.get_by_role("heading", name="Clients")).to_be_visible()


async def test_sign_in_that_was_denied_or_not_begun_here_is_told(
    provider: str, start_service: StartService, open_page: OpenPage
) -> None:
    server = await start_service(
        "jo-server",
        SERVICE_EXAMPLE_UPLOAD_URL="http://127.0.0.1:9/submit",
        SERVICE_EXAMPLE_DOWNLOAD_URL="http://127.0.0.1:9/retrieve",
        OIDC_ISSUERS=provider,
        OIDC_AUDIENCE="dashboard",
        OIDC_CLIENT_ID="dashboard",
    )
    page = await open_page(server, other=provider)
    await page.get_by_role("button", name="Sign in at").click()
    await page.get_by_role("button", name="Deny").click()
    await expect(page.locator("#token-problem")).to_contain_text("denied")
    await page.goto(f"{server.url}/dashboard/?code=stolen&state=guessed")
    await expect(page.locator("#token-problem")).to_contain_text("not begun in this tab")
