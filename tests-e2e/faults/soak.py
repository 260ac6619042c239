"""The soak: random faults of every kind over jobs of every kind, then a check of all promises.

    make soak MINUTES=10 SEED=1

One server, two clients, two users. Services are killed at any moment and at named points;
connections between them are cut, held, refused, delayed and garbled; disks are full and slow;
databases fail. At the end all faults stop, and the promises are checked from outside: by the
answers of the server, the results, the records of the scripts, and the remaining processes, files
and connections. The seed decides the faults; the machine decides when they coincide.
"""

import argparse
import asyncio
import json
import random
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

from faults.soak_faults import Trouble
from faults.soak_jobs import Absence, broken_promises, read_log
from faults.soak_portal import SoakPortal, Tally, processes_of
from faults.soak_world import Ward, World

RUNS_PER_USER = 3
MAX_RUNS = 5
LOST_AFTER_S = 30.0
FINISH_S = 150.0
"""Seconds after the last fault within which every job must have ended."""

MOST_OPEN_FILES = 80
"""Descriptors of an idle service: threads, databases, sockets, some idle connections."""


@dataclass
class Report:
    """Faults and findings of the soak. ``problems`` is empty if all promises were kept."""

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
    most_active_of_a_user: int
    most_active_of_the_service: int
    logged_errors: Mapping[str, int]
    problems: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return the report as text."""
        rows = [
            f"Soak of {self.minutes:g} minutes, seed {self.seed}",
            f"  faults      {sum(self.faults.values())}",
            *(f"    {count:5d}  {kind}" for kind, count in self.faults.items()),
            f"  jobs        {sum(self.jobs.values())}, acknowledged {self.acknowledged}",
            *(f"    {count:5d}  {kind}" for kind, count in self.jobs.items()),
            "  ended       " + ", ".join(f"{n} {status}" for status, n in self.ended.items()),
            f"  lost        {self.lost}",
            f"  results     {self.results_checked} compared with what was uploaded",
            f"  runs        {self.runs}, {self.runs_again} again because a client was away",
            f"  quotas      {self.quota_samples} samples, at most {self.most_active_of_a_user} of"
            f" {RUNS_PER_USER} for a user and {self.most_active_of_the_service} of {MAX_RUNS}",
            f"  problems    {len(self.problems)}",
            *(f"    {problem}" for problem in self.problems[:50]),
        ]
        return "\n".join(rows)


async def soak(minutes: float, seed: int, folder: Path) -> Report:
    """Inject faults for this time, then wait, check and report."""
    world = World(folder, random.Random(seed))  # noqa: S311 (not for secrets)
    log = folder / "runs"
    try:
        await world.start(
            {
                "SERVICE_EXAMPLE_RUNS_PER_USER": str(RUNS_PER_USER),
                "SERVICE_EXAMPLE_MAX_RUNS": str(MAX_RUNS),
                "SERVICE_EXAMPLE_MAX_ATTEMPTS": "100000",
                "LOST_AFTER": f"{LOST_AFTER_S}s",
            }
        )
        portal = SoakPortal(world.server.service.url, log, random.Random(seed + 1))  # noqa: S311
        trouble = Trouble(world, random.Random(seed + 2), lost_after_s=LOST_AFTER_S)  # noqa: S311
        sampling = asyncio.create_task(portal.sample_quotas(world.server.disk.folder / "db.sqlite"))
        work = [asyncio.create_task(portal.submit_for_ever()), asyncio.create_task(trouble.make())]
        await asyncio.wait(work, timeout=minutes * 60, return_when=asyncio.FIRST_EXCEPTION)
        await _end(work)
        await _calm(world)
        await portal.finish(FINISH_S)
        await _end([sampling])
        problems = await _left_while_running(world)
        await world.stop()
        problems += await _left_at_the_end(world)
    finally:
        await world.stop()
        world.remove()
    return _report(minutes, seed, world, trouble, portal.tally, log, problems)


async def _end(tasks: list["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome


async def _calm(world: World) -> None:
    """Stop all faults; from here on, every job must end."""
    for proxy in world.proxies:
        for weather in (proxy.requests, proxy.answers):
            weather.delay_s, weather.cut_after, weather.garbage = 0.0, None, None
        proxy.release()
        await proxy.refuse()
        await proxy.open()
    await asyncio.gather(*(ward.calm() for ward in world.wards))


async def _left_while_running(world: World) -> list[str]:
    """List descriptors that an idle service should not hold, and processes of jobs."""
    problems = [f"left running: {text}" for text in processes_of(str(world.folder))]
    for ward in world.wards:
        process = psutil.Process(ward.service.pid)
        problems += [
            f"{ward.name} holds {file.path}"
            for file in process.open_files()
            if file.path.startswith(str(ward.data))
        ]
        if process.num_fds() > MOST_OPEN_FILES:
            problems.append(f"{ward.name} has {process.num_fds()} open files")
    for client in world.clients:
        streams = _connections(client)
        await world.server.stop()
        async with asyncio.timeout(20):
            while _connections(client):  # noqa: ASYNC110 (there is no event)
                await asyncio.sleep(0.1)
        if streams > MOST_OPEN_FILES:
            problems.append(f"{client.name} had {streams} connections")
    return problems


def _connections(client: Ward) -> int:
    port = int(client.service.url.rpartition(":")[2])
    return sum(
        1
        for connection in psutil.Process(client.service.pid).net_connections("tcp")
        if connection.laddr.port == port and connection.status == psutil.CONN_ESTABLISHED
    )


async def _left_at_the_end(world: World) -> list[str]:
    """List files that remain after MAX_AGE."""
    problems = []
    for ward in world.wards:
        ward.service.settings["MAX_AGE"] = "0s"
        ward.service.settings.pop("JO_FAULT", None)
        ward.note_errors()
        await ward.service.start()
        kept = [ward.data / name for name in ("incoming", "payloads", "next-id", "lost+found")]
        try:
            async with asyncio.timeout(30):
                while left := _entries(ward.data, kept):  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
        except TimeoutError:
            problems += [f"{ward.name} left {path}" for path in left[:10]]
        await ward.service.end()
    return problems


def _entries(data: Path, kept: list[Path]) -> list[Path]:
    """List the entries of a data folder and of its folders for incoming files."""
    found = [path for path in data.iterdir() if path not in kept]
    for folder in (data / "incoming", data / "payloads"):
        if folder.exists():
            found += folder.iterdir()
    return found


def _report(
    minutes: float,
    seed: int,
    world: World,
    trouble: Trouble,
    tally: Tally,
    log: Path,
    problems: list[str],
) -> Report:
    faults = Counter(trouble.done)
    errors: Counter[str] = Counter()
    absences: list[Absence] = []
    for ward in world.wards:
        problems += ward.problems
        errors += ward.errors
        absences += ward.absences
        for cause, count in (ward.deaths + ward.armed).items():
            if cause not in trouble.done and cause != "calmed":
                faults[f"{cause}" if "at" in cause else f"{cause} ({ward.kind})"] += count
    databases_failed = any("database" in fault for fault in faults)
    lines = read_log(log)
    for job in tally.jobs:
        problems += broken_promises(
            job,
            lines.get(job.token, []),
            absences,
            disks_failed=trouble.disks_failed or databases_failed,
        )
    if tally.most_of_user > RUNS_PER_USER or tally.most_of_service > MAX_RUNS:
        problems.append(f"quotas: {tally.most_of_user} of a user, {tally.most_of_service} in all")
    acknowledged = [job for job in tally.jobs if job.job_id is not None]
    starts = [sum(line.what == "start" for line in of_job) for of_job in lines.values()]
    return Report(
        seed=seed,
        minutes=minutes,
        faults=dict(sorted(faults.items())),
        jobs=dict(Counter(job.kind for job in tally.jobs)),
        ended=dict(Counter(job.status for job in acknowledged if job.done)),
        acknowledged=len(acknowledged),
        lost=sum(not job.done for job in acknowledged),
        results_checked=tally.results,
        runs=sum(starts),
        runs_again=sum(count - 1 for count in starts if count > 1),
        quota_samples=tally.samples,
        most_active_of_a_user=tally.most_of_user,
        most_active_of_the_service=tally.most_of_service,
        logged_errors=dict(errors.most_common()),
        problems=[*tally.problems, *problems],
    )


def main() -> None:
    """Run the soak; exit status 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description="Faults of every kind over jobs of every kind")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--json", type=Path, help="file for the report")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        report = asyncio.run(soak(options.minutes, options.seed, Path(folder)))
    print(report.text())  # noqa: T201
    if options.json is not None:
        content: dict[str, Any] = vars(report)
        options.json.write_text(json.dumps(content, indent=2))
    sys.exit(1 if report.problems else 0)


if __name__ == "__main__":
    main()
