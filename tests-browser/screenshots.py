"""Create the screenshots of the dashboard in docs/images/; run by ``make screenshots``.

The services and the running jobs are real. The jobs of the last hour are written into the database
before the server starts. Loopback addresses are replaced by readable host names.
"""

import asyncio
import contextlib
import math
import os
import random
import shutil
import sqlite3
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from playwright.async_api import Browser, Page, async_playwright, expect
from yarl import URL

from browsing import DESK, PHONE
from harness import Portal, Service, eventually

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
EXAMPLE = ROOT / "examples" / "interface"

USERS = (7, 12, 12, 31, 104)
SERVICES = {"docking": 12, "teaching": 4, "validation": 8}
NAMES = (
    "2OOB interface",
    "Barnase-barstar",
    "Peptide scan",
    "Refinement",
    "Exercise 3",
    "1UBQ validation",
    "Contact map",
    "",
)
TAGS = ("", "", "", "course-2026", "batch-17")

DOCKING = r"""#!/bin/bash
echo "Reading 2oob_A.pdb and 2oob_B.pdb"
echo "926 atoms, 117 residues, 2 chains"
for cycle in $(seq 1 40); do
  printf 'cycle %2d  score %9.2f  contacts %2d\n' $cycle -$((1200 + cycle * 7)).5 $((12+cycle/2))
done
echo "warning: HIS 68 has two conformers, A is taken" >&2
sleep 600
"""


class Outcome(NamedTuple):
    """Status, message and exit code of a job that ended."""

    status: str
    message: str
    exit_code: int | None


COMPLETED = Outcome("Completed", "", 0)
UNSUCCESSFUL = (
    Outcome("Failed", "run.sh exited with code 7", 7),
    Outcome("Failed", "Time limit of 600 s reached", None),
    Outcome("Invalid", "run.sh is refused: line 4 uses curl", None),
    Outcome("Killed", "Terminated on request", None),
)


def write_history(database: Path, clients: dict[str, str]) -> None:
    """Write the jobs of the last hour into a database, with a varying rate."""
    rng = random.Random(11)  # noqa: S311 (not for secrets)
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        start = time.time() - 3540
        for minute in range(58):
            busy = 6 + 4 * math.sin(minute / 8) + rng.uniform(-2, 2)
            for _ in range(round(busy)):
                at = start + 60 * minute + rng.uniform(0, 59)
                _write_job(connection, rng, at, clients, wait_s=abs(rng.gauss(busy / 5, 0.7)))


def _write_job(
    connection: sqlite3.Connection,
    rng: random.Random,
    at: float,
    clients: dict[str, str],
    wait_s: float,
) -> None:
    service = rng.choice(list(SERVICES))
    end = rng.choice(UNSUCCESSFUL) if rng.random() < 0.07 else COMPLETED
    (job_id,) = connection.execute(
        "INSERT INTO jobs (uuid, user_id, service, status, message, name, tag, attempt, client_url,"
        " created_at, changed_at) VALUES (?, ?, ?, 'Queued', '', ?, ?, 1, ?, ?, ?) RETURNING id",
        (
            str(uuid.uuid4()),
            rng.choice(USERS),
            service,
            rng.choice(NAMES),
            rng.choice(TAGS),
            clients[service],
            at,
            at,
        ),
    ).fetchone()
    run_s = min(rng.lognormvariate(2.6, 0.8), time.time() - at - wait_s - 5)
    steps = (
        ("Processing", "", at + wait_s),
        ("Submitted", "", at + wait_s + 0.01),
        ("Running", "run.sh is executing", at + wait_s + 0.02),
        (end.status, end.message, at + wait_s + max(run_s, 1)),
    )
    for status, message, when in steps:
        connection.execute(
            "UPDATE jobs SET status = ?, message = ?, changed_at = ? WHERE id = ?",
            (status, message, when, job_id),
        )
    connection.execute(
        "UPDATE jobs SET started_at = ?, ended_at = changed_at, exit_code = ? WHERE id = ?",
        (at + wait_s + 0.02, end.exit_code, job_id),
    )


class Scene(NamedTuple):
    """A server with clients and jobs to display."""

    url: str
    hosts: dict[str, str]
    running: int
    ended: int


@contextlib.asynccontextmanager
async def run_scene(root: Path) -> AsyncIterator[Scene]:
    """Run a server with three clients, one of them stopped, and running, queued and ended jobs."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(name: str, number: int, **settings: str) -> Service:
            folder = root / f"{name}-{number}"
            folder.mkdir()
            service = Service(name, folder, settings)
            stack.push_async_callback(service.end)
            return await service.start()

        # As an administrator sets it up: scripts of a client of root run as another user.
        run_as = {"RUN_AS": "nobody"} if os.geteuid() == 0 else {}
        clients = [
            await start("jo-client", number, SLOTS=str(slots), KILL_GRACE="1s", **run_as)
            for number, slots in enumerate((8, 8, 4), start=1)
        ]
        clients_of = {"docking": clients[:2], "teaching": clients[:1], "validation": clients[2:]}
        policy = root / "policy.toml"
        policy.write_text("[groups.course-2026]\nmembers = [7, 12, 31]\nmax_runs = 6\n")
        settings = {
            "LOST_AFTER": "1h",
            "POLICY_FILE": str(policy),
            "TOTAL_MAX_RUNS": "20",
            "SERVICE_DOCKING_RUNS_PER_USER_BURST": "6",
        }
        for name, limit in SERVICES.items():
            prefix = f"SERVICE_{name.upper()}"
            urls = [client.url for client in clients_of[name]]
            settings[f"{prefix}_UPLOAD_URL"] = ",".join(f"{url}/submit" for url in urls)
            settings[f"{prefix}_DOWNLOAD_URL"] = ",".join(f"{url}/retrieve" for url in urls)
            settings[f"{prefix}_MAX_RUNS"] = str(limit)
            settings[f"{prefix}_RUNS_PER_USER"] = "3"
        server = await start("jo-server", 0, **settings)
        await server.end()
        first = {name: f"{found[0].url}/submit" for name, found in clients_of.items()}
        await asyncio.to_thread(write_history, server.folder / "db.sqlite", first)
        await server.start()
        http = await stack.enter_async_context(aiohttp.ClientSession())
        portal = Portal(server.url, http)
        example = [await _submit_example(http, server.url, name) for name in ("1UBQ", "2OOB")]
        running = [
            await _submit(http, server.url, user, service, name, tag)
            for user, service, name, tag in (
                (12, "docking", "Barnase-barstar", "batch-17"),
                (31, "docking", "Peptide scan", ""),
                (12, "teaching", "Exercise 3", "course-2026"),
                (7, "teaching", "Exercise 3", "course-2026"),
                (12, "teaching", "Exercise 3, again", "course-2026"),
                (104, "teaching", "Exercise 4", "course-2026"),
                (31, "teaching", "Exercise 4", "course-2026"),
                (7, "docking", "2OOB refinement", ""),
                (31, "teaching", "Exercise 5", "course-2026"),
            )
        ]
        for job in example:
            await portal.end_of(job)
        await portal.until(running[7], "Running")
        await clients[1].end(9)
        hosts = {client.url: f"http://compute-{n}:9000" for n, client in enumerate(clients, 1)}

        async def is_unreachable() -> bool:
            async with http.get(f"{server.url}/clients") as response:
                return any(c["state"] == "unreachable" for c in (await response.json())["clients"])

        await eventually(is_unreachable)
        yield Scene(server.url, hosts, running[2], example[1])


async def _submit_example(http: aiohttp.ClientSession, url: str, name: str) -> int:
    form = aiohttp.FormData({"user_id": "12", "service": "validation", "name": f"{name} interface"})
    for path in sorted(EXAMPLE.iterdir()):
        if path.suffix in (".sh", ".py", ".pdb"):
            form.add_field("file", path.read_bytes(), filename=path.name)
    async with http.post(f"{url}/upload", data=form) as response:
        return int((await response.json())["id"])


async def _submit(
    http: aiohttp.ClientSession, url: str, user: int, service: str, name: str, tag: str
) -> int:
    fields = {"user_id": str(user), "service": service, "name": name, "tag": tag}
    form = aiohttp.FormData({key: value for key, value in fields.items() if value})
    form.add_field("file", DOCKING.encode(), filename="run.sh")
    async with http.post(f"{url}/upload", data=form) as response:
        return int((await response.json())["id"])


async def save_screenshot(
    browser: Browser, scene: Scene, name: str, route: str, **profile: Any
) -> None:
    """Save a screenshot of a page of the dashboard."""
    context = await browser.new_context(reduced_motion="reduce", **profile)
    page = await context.new_page()
    await page.goto(f"{scene.url}/dashboard/{route}")
    await expect(page.locator(".job-table tr, .timeline li").last).to_be_visible()
    # Charts and output are drawn after the data has arrived.
    await page.wait_for_load_state("load")
    await page.wait_for_timeout(1500)
    await _name_hosts(page, scene.hosts)
    await page.screenshot(path=IMAGES / f"{name}.png")
    await context.close()


async def _name_hosts(page: Page, hosts: dict[str, str]) -> None:
    names = {}
    for url, name in hosts.items():
        actual, readable = URL(url), URL(name)
        names[actual.authority] = readable.authority
        names[f"('{actual.host}', {actual.port})"] = f"('{readable.host}', {readable.port})"
    await page.evaluate(
        """names => {
            const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
            while (walker.nextNode()) for (const [host, name] of Object.entries(names))
                walker.currentNode.data = walker.currentNode.data.replaceAll(host, name);
        }""",
        names,
    )


async def main() -> None:
    """Create all screenshots."""
    IMAGES.mkdir(exist_ok=True)
    phone: dict[str, Any] = {"viewport": PHONE, "device_scale_factor": 2}
    desk: dict[str, Any] = {"viewport": DESK}
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o711)  # noqa: PTH101, S103 (scripts of another user reach their folders)
        async with run_scene(Path(root)) as scene, async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=shutil.which("chromium"),
                args=["--no-sandbox", "--disable-dev-shm-usage"],
            )
            running, ended = f"#/jobs/{scene.running}", f"#/jobs/{scene.ended}"
            await save_screenshot(
                browser, scene, "dashboard-light", "", color_scheme="light", **desk
            )
            await save_screenshot(browser, scene, "dashboard-dark", "", color_scheme="dark", **desk)
            await save_screenshot(
                browser, scene, "dashboard-phone-light", "", color_scheme="light", **phone
            )
            await save_screenshot(
                browser, scene, "dashboard-phone-dark", "", color_scheme="dark", **phone
            )
            await save_screenshot(
                browser, scene, "job-running-dark", running, color_scheme="dark", **desk
            )
            await save_screenshot(
                browser, scene, "job-ended-light", ended, color_scheme="light", **desk
            )
            await save_screenshot(
                browser, scene, "job-phone-light", running, color_scheme="light", **phone
            )
            await save_screenshot(
                browser, scene, "job-phone-dark", ended, color_scheme="dark", **phone
            )
            await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
