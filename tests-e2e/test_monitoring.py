"""Metrics of both services, and the dashboard and alert rules in deploy/monitoring/."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import aiohttp
import pytest

from harness import Portal, StartClient, StartServer

MONITORING = Path(__file__).parents[1] / "deploy" / "monitoring"
PROMTOOL = shutil.which("promtool")

needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool (Debian package prometheus) is not installed"
)


def promtool(*arguments: str, text: str | None = None) -> None:
    result = subprocess.run(
        [str(PROMTOOL), *arguments],
        cwd=MONITORING,
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture
async def scraped(
    start_client: StartClient, start_server: StartServer, session: aiohttp.ClientSession
) -> tuple[str, str]:
    """The metrics of a server and of a client after a few jobs."""
    client = await start_client()
    server = await start_server(client)
    portal = Portal(server.url, session)
    # Small results come with the end of the job and are not fetched.
    large = "head -c 200000 /dev/urandom > large\n"
    assert (await portal.end_of(await portal.submit(large)))["status"] == "Completed"
    assert (await portal.end_of(await portal.submit("exit 3\n")))["status"] == "Failed"
    assert (await portal.end_of(await portal.submit("curl x\n")))["status"] == "Invalid"
    texts = []
    for service in (server, client):
        async with session.get(f"{service.url}/metrics") as response:
            assert response.content_type == "text/plain"
            texts.append(await response.text())
    return texts[0], texts[1]


def value(text: str, series: str) -> float:
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    assert found, f"{series} is not in\n{text}"
    return float(found[1])


async def test_metrics_count_what_happened_and_dashboard_and_rules_use_no_others(
    scraped: tuple[str, str],
) -> None:
    server, client = scraped
    assert value(server, 'jo_server_jobs_submitted_total{service="example"}') == 3
    ended = 'jo_server_jobs_ended_total{service="example",status="%s"}'
    assert [value(server, ended % s) for s in ("Completed", "Failed", "Invalid", "Killed")] == [
        1,
        1,
        1,
        0,
    ]
    failures = 'jo_server_failures_total{reason="%s",service="example"}'
    assert [value(server, failures % reason) for reason in ("script", "refused")] == [1, 1]
    assert value(server, 'jo_server_attempts_total{service="example"}') == 3
    assert value(server, "jo_server_dispatch_seconds_count") == 3
    assert value(server, "jo_server_fetch_seconds_count") == 1
    assert value(server, 'jo_server_queue_seconds_count{service="example"}') == 3
    assert value(server, 'jo_server_jobs{service="example",status="Running"}') == 0
    assert value(server, "jo_server_sqlite_write_seconds_count") > 6
    assert value(server, 'jo_server_output_bytes_total{service="example"}') > 0
    assert value(client, "jo_client_payloads_received_total") == 3
    assert value(client, 'jo_client_payloads_ended_total{status="Completed"}') == 1
    assert value(client, "jo_client_slots") == 10
    assert value(client, "jo_client_event_streams") == 1
    known = set(re.findall(r"^# TYPE (\S+)", server + client, re.MULTILINE)) | {"up"}
    panels = json.loads((MONITORING / "grafana-dashboard.json").read_text())["panels"]
    used = " ".join(target["expr"] for panel in panels for target in panel["targets"])
    used += (MONITORING / "alerts.yml").read_text()
    names = set(re.findall(r"\b(?:jo_(?:server|client)|process)_[a-z_]+", used))
    missing = {name for name in names if re.sub("_bucket$", "", name) not in known}
    assert missing <= {"jo_"}, missing


@needs_promtool
async def test_metrics_follow_the_conventions(scraped: tuple[str, str]) -> None:
    for text in scraped:
        # Process metrics have the standard names of the Prometheus client libraries.
        ours = "".join(
            line for line in text.splitlines(keepends=True) if re.match(r"(# \w+ )?jo_", line)
        )
        promtool("check", "metrics", text=ours)


@needs_promtool
def test_rules_and_example_are_valid_and_alert_when_they_should() -> None:
    promtool("check", "rules", "alerts.yml")
    promtool("check", "config", "prometheus.yml")
    promtool("test", "rules", "alerts_test.yml")
