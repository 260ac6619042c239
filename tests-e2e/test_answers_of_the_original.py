"""The answers of the original to 48 requests, compared with ours.

``data/answers_of_the_original.json`` was recorded from its release 2.2.3. Each difference is a row
of the table in docs/migrating.md.
"""

import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from harness import Service, StartClient, StartServer

HERE = Path(__file__).parent
RECORDED = json.loads((HERE / "data" / "answers_of_the_original.json").read_text("utf-8"))
PAGE = HERE.parent / "docs" / "migrating.md"
HEADING = "## Different answers"

BOUNDARY = "fc3f4d549aa141e1a9600b46cbeecc6e"
MAX_SHOWN = 100
OWN_VALUES = frozenset({"id", "loc"})
"""Fields whose values are given by the service."""


def documented() -> dict[str, tuple[str, str]]:
    """Return the answers there and here, by case, of the table on the page."""
    section = PAGE.read_text("utf-8").partition(HEADING)[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", section, re.MULTILINE)
    return {case: (there, here) for case, there, here, _ in rows[2:]}


def encoded(form: list[list[str | None]]) -> bytes:
    """Return a multipart body as the recorded one was."""
    body = ""
    for name, filename, value in form:
        named = "" if filename is None else f'; filename="{filename}"'
        body += f"--{BOUNDARY}\r\n"
        body += f'Content-Disposition: form-data; name="{name}"{named}\r\n\r\n{value}\r\n'
    return f"{body}--{BOUNDARY}--\r\n".encode()


async def answer_to(
    session: aiohttp.ClientSession, url: str, case: dict[str, Any]
) -> tuple[int, str, Any]:
    """Send a recorded request; return status, content type and body."""
    headers, body = {}, None
    if "form" in case:
        headers["Content-Type"] = f"multipart/form-data; boundary={BOUNDARY}"
        body = encoded(case["form"])
    elif "body" in case:
        headers["Content-Type"] = case.get("type", "")
        body = case["body"].encode()
    async with session.request(
        case["method"],
        url + case["path"],
        data=body,
        headers=headers,
        skip_auto_headers=["Content-Type"],
    ) as response:
        text = await response.text()
        kind = response.content_type
        return response.status, kind, json.loads(text) if kind.endswith("json") and text else text


def difference(case: dict[str, Any], status: int, kind: str, body: Any) -> tuple[str, str] | None:
    """Return what differs, there and here: status, content type, fields of equal statuses."""
    there, here = [str(case["answer"])], [str(status)]
    if case["answer_type"] not in (kind, "-"):
        there.append(case["answer_type"])
        here.append(kind)
    expected = case["answer_body"]
    if there == here and isinstance(expected, dict):
        for field, value in expected.items():
            given = body.get(field)
            if (bool(value) != bool(given)) if field in OWN_VALUES else value != given:
                there.append(f"`{field}` {_shown(value)}")
                here.append(f"`{field}` {_shown(given)}")
    return None if there == here else (", ".join(there), ", ".join(here))


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text.replace("`", "'") if len(text) < MAX_SHOWN else f"{text[:20]}…"


@pytest.fixture
async def urls(start_client: StartClient, start_server: StartServer) -> dict[str, str]:
    client: Service = await start_client()
    return {"client": client.url, "server": (await start_server(client)).url}


async def test_answers_are_those_of_the_original_but_for_the_documented_differences(
    urls: dict[str, str], session: aiohttp.ClientSession
) -> None:
    found = {}
    for case in RECORDED:
        answer = await answer_to(session, urls[case["to"]], case)
        if (differs := difference(case, *answer)) is not None:
            found[case["case"]] = differs
    assert found == documented()
