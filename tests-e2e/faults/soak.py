"""Soak test: random faults while random jobs run, then a check of all promises.

    make soak MINUTES=10 SEED=1

One server, two clients, two users. Services are killed at random times and at fault points;
connections are cut, held, refused, delayed and corrupted; the link is cut at messages, which are
repeated; disks are full, read-only, slow or without inodes; databases fail; the fork server of a
client is stopped or killed; the power of the server is cut.
Finally all faults stop, and the promises (docs/reliability.md) are checked from outside: by the
responses of the server, the results, the log that the scripts write, and the remaining processes,
files and connections. The seed determines the sequence of jobs and faults; their timing depends on
the machine.
"""

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.soak_deployment import Deployment, SupervisedService
from faults.soak_faults import FaultInjector
from faults.soak_jobs import Outage, broken_promises, read_log
from faults.soak_portal import PortalRecord, SoakPortal, processes_with

RUNS_PER_USER = 3
MAX_RUNS = 5
LOST_AFTER_S = 30.0
FINISH_S = 150.0
"""Time after the last fault within which every job must end."""

FOLDERS_S = 90.0
"""Time after the last job within which clients must have removed its folder."""

CHECKS_S = 600.0
"""Time after the last fault within which all jobs must have ended and all checks must be done."""

MAX_OPEN_FILES = 80
"""Limit for a service at rest: threads, databases, sockets and some idle connections."""


@dataclass
class Report:
    """Statistics and problems of one soak. ``problems`` is empty if all promises were kept."""

    seed: int
    minutes: float
    faults: Mapping[str, int]
    jobs: Mapping[str, int]
    ended: Mapping[str, int]
    acknowledged: int
    lost: int
    results_checked: int
    runs: int
    runs_again: int
    quota_samples: int
    max_active_of_a_user: int
    max_active_of_the_service: int
    logged_errors: Mapping[str, int]
    problems: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Format the report for people."""
        rows = [
            f"Soak of {self.minutes:g} minutes, seed {self.seed}",
            f"  faults      {sum(self.faults.values())}",
            *(f"    {count:5d}  {kind}" for kind, count in self.faults.items()),
            f"  jobs        {sum(self.jobs.values())}, acknowledged {self.acknowledged}",
            *(f"    {count:5d}  {kind}" for kind, count in self.jobs.items()),
            "  ended       " + ", ".join(f"{n} {status}" for status, n in self.ended.items()),
            f"  lost        {self.lost}",
            f"  results     {self.results_checked} compared with what was uploaded",
            f"  runs        {self.runs}, {self.runs_again} of them repeated after a client outage",
            f"  quotas      {self.quota_samples} samples, at most {self.max_active_of_a_user} of"
            f" {RUNS_PER_USER} for a user and {self.max_active_of_the_service} of {MAX_RUNS}",
            f"  problems    {len(self.problems)}",
            *(f"    {problem}" for problem in self.problems[:50]),
        ]
        return "\n".join(rows)


async def soak(minutes: float, seed: int, folder: Path) -> Report:
    """Inject faults for ``minutes``, wait for the jobs to end, check and report."""
    deployment = Deployment(folder, random.Random(seed))  # noqa: S311 (not for secrets)
    log = folder / "runs"
    try:
        await deployment.start(
            {
                "SERVICE_EXAMPLE_RUNS_PER_USER": str(RUNS_PER_USER),
                "SERVICE_EXAMPLE_MAX_RUNS": str(MAX_RUNS),
                "SERVICE_EXAMPLE_MAX_ATTEMPTS": "100000",
                "LOST_AFTER": f"{LOST_AFTER_S}s",
            }
        )
        portal = SoakPortal(deployment.server.process.url, log, random.Random(seed + 1))  # noqa: S311
        injector = FaultInjector(deployment, random.Random(seed + 2), lost_after_s=LOST_AFTER_S)  # noqa: S311
        sampling = asyncio.create_task(
            portal.sample_quotas(deployment.server.disk.folder / "db.sqlite")
        )
        work = [
            asyncio.create_task(portal.submit_until_cancelled()),
            asyncio.create_task(injector.run()),
        ]
        await asyncio.wait(work, timeout=minutes * 60, return_when=asyncio.FIRST_EXCEPTION)
        async with asyncio.timeout(CHECKS_S):
            await _end(work)
            await _stop_faults(deployment)
            await portal.finish(FINISH_S)
            await portal.confirm()
            await _end([sampling])
            problems = await _leaks_while_running(deployment)
            await deployment.stop()
            problems += await _leaks_after_cleanup(deployment)
    finally:
        await deployment.stop()
        deployment.remove()
    return _report(minutes, seed, deployment, injector, portal.record, log, problems)


async def _end(tasks: list["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome


async def _stop_faults(deployment: Deployment) -> None:
    """Stop all faults, and restart the services without any. From here on every job must end."""
    for link in deployment.links:
        for messages in (link.requests, link.responses):
            messages.cut_at, messages.repeated = None, False
    for proxy in deployment.proxies:
        for conditions in (proxy.requests, proxy.responses):
            conditions.delay_s, conditions.cut_after, conditions.garbage = 0.0, None, None
        proxy.resume()
        await proxy.refuse()
        await proxy.open()
    await asyncio.gather(*(service.stop_faults() for service in deployment.services))


async def _leaks_while_running(deployment: Deployment) -> list[str]:
    """Find files and connections that services at rest hold open, and processes of jobs."""
    problems = [f"left running: {text}" for text in processes_with(str(deployment.folder))]
    for service in deployment.services:
        process = psutil.Process(service.process.pid)
        problems += [
            f"{service.name} holds {file.path}"
            for file in process.open_files()
            if file.path.startswith(str(service.data))
        ]
        if process.num_fds() > MAX_OPEN_FILES:
            problems.append(f"{service.name} has {process.num_fds()} open files")
    for client in deployment.clients:
        problems += await _folders_that_stay(client)
    for client in deployment.clients:
        streams = _connections(client)
        await deployment.server.stop()
        async with asyncio.timeout(20):
            while _connections(client):  # noqa: ASYNC110 (there is no event)
                await asyncio.sleep(0.1)
        if streams > MAX_OPEN_FILES:
            problems.append(f"{client.name} had {streams} connections")
    return problems


async def _folders_that_stay(client: SupervisedService) -> list[str]:
    """Find folders of payloads whose jobs have all ended."""
    folder = client.data / "payloads"
    try:
        async with asyncio.timeout(FOLDERS_S):
            while list(folder.iterdir()):  # noqa: ASYNC110 (there is no event)
                await asyncio.sleep(0.2)
    except TimeoutError:
        return [f"{client.name} keeps {path.name}" for path in folder.iterdir()]
    return []


def _connections(client: SupervisedService) -> int:
    port = int(client.process.url.rpartition(":")[2])
    return sum(
        1
        for connection in psutil.Process(client.process.pid).net_connections("tcp")
        if connection.laddr.port == port and connection.status == psutil.CONN_ESTABLISHED
    )


async def _leaks_after_cleanup(deployment: Deployment) -> list[str]:
    """Find files that remain after everything has passed its MAX_AGE."""
    problems = []
    for service in deployment.services:
        service.process.settings["MAX_AGE"] = "0s"
        service.process.settings.pop("JO_FAULT", None)
        service.note_errors()
        service.process.log.clear()
        await service.process.start()
        kept = [service.data / name for name in ("incoming", "payloads", "next-id", "lost+found")]
        try:
            async with asyncio.timeout(30):
                while left := _entries(service.data, kept):  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
        except TimeoutError:
            problems += [f"{service.name} left {path}" for path in left[:10]]
        await service.process.end()
    return problems


def _entries(data: Path, kept: list[Path]) -> list[Path]:
    """List the entries of a data folder and of its folders for unfinished uploads."""
    found = [path for path in data.iterdir() if path not in kept]
    for folder in (data / "incoming", data / "payloads"):
        if folder.exists():
            found += folder.iterdir()
    return found


def _report(
    minutes: float,
    seed: int,
    deployment: Deployment,
    injector: FaultInjector,
    record: PortalRecord,
    log: Path,
    problems: list[str],
) -> Report:
    faults = Counter(injector.injected)
    errors: Counter[str] = Counter()
    outages: list[Outage] = []
    for service in deployment.services:
        problems += service.problems
        errors += service.errors
        outages += service.outages
        for cause, count in (service.exits + service.armed).items():
            if cause not in injector.injected and cause != "faults stopped":
                faults[f"{cause}" if "at" in cause else f"{cause} ({service.kind})"] += count
    databases_failed = any("database" in fault for fault in faults)
    lines = read_log(log)
    for job in record.jobs:
        problems += broken_promises(
            job,
            lines.get(job.token, []),
            outages,
            disks_failed=injector.disks_failed or databases_failed,
        )
    if record.max_active_of_user > RUNS_PER_USER or record.max_active_of_service > MAX_RUNS:
        problems.append(
            f"quotas exceeded: {record.max_active_of_user} jobs of a user,"
            f" {record.max_active_of_service} of the service"
        )
    acknowledged = [job for job in record.jobs if job.job_id is not None]
    starts = [sum(line.what == "start" for line in of_job) for of_job in lines.values()]
    return Report(
        seed=seed,
        minutes=minutes,
        faults=dict(sorted(faults.items())),
        jobs=dict(Counter(job.kind for job in record.jobs)),
        ended=dict(Counter(job.status for job in acknowledged if job.done)),
        acknowledged=len(acknowledged),
        lost=sum(not job.done for job in acknowledged),
        results_checked=record.results,
        runs=sum(starts),
        runs_again=sum(count - 1 for count in starts if count > 1),
        quota_samples=record.samples,
        max_active_of_a_user=record.max_active_of_user,
        max_active_of_the_service=record.max_active_of_service,
        logged_errors=dict(errors.most_common()),
        problems=[*record.problems, *problems],
    )


def main() -> None:
    """Run the soak. The exit status is 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description="Inject random faults while random jobs run")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--json", type=Path, help="write the report to this file")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    report = asyncio.run(soak(options.minutes, options.seed, folder))
    print(report.text())  # noqa: T201
    if report.problems:
        print(f"Logs of the services, times of the faults and log of the scripts: {folder}")  # noqa: T201
    else:
        shutil.rmtree(folder)
    if options.json is not None:
        content: dict[str, Any] = vars(report)
        options.json.write_text(json.dumps(content, indent=2))
    sys.exit(1 if report.problems else 0)


if __name__ == "__main__":
    main()
