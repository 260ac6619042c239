"""CORS_ORIGINS: access of pages of other origins."""

from pathlib import Path

import aiohttp
import pytest

from job_orchestrator.common.errors import StartupError
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.server.auth.token_file import create_token
from job_orchestrator.server.settings.server import read_settings
from running_server import StartServer

UNREACHABLE = "http://127.0.0.1:9"
PORTAL = "https://portal.example.org"
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}


@pytest.mark.parametrize(
    ("setting", "origin", "allowed"),
    [
        (PORTAL, PORTAL, PORTAL),
        (f"http://localhost:3000, {PORTAL}", PORTAL, PORTAL),
        ("https://PORTAL.example.org/", PORTAL, PORTAL),
        ("*", PORTAL, "*"),
        ("*", "null", "*"),
        (PORTAL, "https://evil.example.org", None),
        (PORTAL, "https://portal.example.org.evil.org", None),
        (PORTAL, "http://portal.example.org", None),
        (PORTAL, "null", None),
        ("", PORTAL, None),
    ],
)
async def test_page_may_read_answers_if_its_origin_is_listed(
    start_server: StartServer, setting: str, origin: str, allowed: str | None
) -> None:
    server = await start_server(UNREACHABLE, CORS_ORIGINS=setting)
    for path in ("/health", "/download/1", "/nothing"):
        async with server.http.get(path, headers={"Origin": origin}) as response:
            headers = response.headers
            assert headers.get("Access-Control-Allow-Origin") == allowed
            assert "Access-Control-Allow-Credentials" not in headers
            exposed = headers.get("Access-Control-Expose-Headers", "")
            if allowed:
                assert all(name in exposed for name in ("Location", "ETag", "X-Request-Id"))
            if setting not in ("", "*"):
                assert "Origin" in headers["Vary"]
    async with server.http.options("/upload", headers={**PREFLIGHT, "Origin": origin}) as response:
        assert response.headers.get("Access-Control-Allow-Origin") == allowed
        assert response.status == (405 if allowed is None else 204)
        if allowed:
            assert "POST" in response.headers["Access-Control-Allow-Methods"]
            accepted = response.headers["Access-Control-Allow-Headers"].lower().replace(" ", "")
            assert {"authorization", "content-type"} <= set(accepted.split(","))


async def test_preflight_requires_no_token_and_error_responses_can_be_read(
    start_server: StartServer, tmp_path: Path
) -> None:
    file = tmp_path / "tokens.json"
    await in_thread(create_token, file, user_id=7, label="", valid_s=None)
    server = await start_server(UNREACHABLE, CORS_ORIGINS=PORTAL, API_TOKENS_FILE=str(file))
    async with server.http.options("/upload", headers={**PREFLIGHT, "Origin": PORTAL}) as response:
        assert response.status == 204
    async with server.http.options("/upload", headers={"Origin": PORTAL}) as response:
        assert response.status == 401, "not a preflight: it has no Access-Control-Request-Method"
    form = aiohttp.FormData({"service": "example"})
    async with server.http.post("/upload", data=form, headers={"Origin": PORTAL}) as response:
        assert response.status == 401
        assert response.headers["Access-Control-Allow-Origin"] == PORTAL


@pytest.mark.parametrize("value", ["portal.example.org", f"{PORTAL}/path", f"*,{PORTAL}", "null"])
def test_setting_that_is_not_an_origin_prevents_the_start(value: str) -> None:
    base = {f"SERVICE_A_{what}_URL": UNREACHABLE for what in ("UPLOAD", "DOWNLOAD")}
    with pytest.raises(StartupError, match="CORS_ORIGINS is"):
        read_settings({**base, "CORS_ORIGINS": value}, {})
