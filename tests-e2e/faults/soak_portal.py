"""Portal of the soak: submits, terminates, waits, fetches, and retries for ever."""

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from faults.soak_jobs import SoakJob, next_job, now, wrong_results
from harness import FINAL

MOST_AT_ONCE = 24
"""Maximum number of jobs that have not ended: more than the quotas allow to run."""

RETRY_S = 0.3
SAMPLE_S = 0.05


@dataclass
class Tally:
    """Counts of the portal's requests and errors."""

    jobs: list[SoakJob] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    results: int = 0
    samples: int = 0
    most_of_user: int = 0
    most_of_service: int = 0


class SoakPortal:
    """Submits jobs until it is cancelled, and follows each to its end."""

    def __init__(self, url: str, log: Path, chance: random.Random) -> None:
        self.url = url
        self.tally = Tally()
        self._log = log
        self._chance = chance
        self._following: set[asyncio.Task[None]] = set()
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=45))

    async def submit_for_ever(self) -> None:
        """Submit until cancelled; submitted jobs are still followed."""
        while True:
            await asyncio.sleep(self._chance.uniform(0.0, 0.3))
            if len(self._following) < MOST_AT_ONCE:
                job = next_job(self._chance)
                self.tally.jobs.append(job)
                task = asyncio.create_task(self._follow(job))
                self._following.add(task)
                task.add_done_callback(self._following.discard)

    async def finish(self, timeout_s: float) -> None:
        """Wait until all jobs have ended, for a limited time."""
        if self._following:
            await asyncio.wait(set(self._following), timeout=timeout_s)
        for task in set(self._following):
            task.cancel()
        await self._session.close()

    async def _follow(self, job: SoakJob) -> None:
        try:
            job.job_id = await self._submit(job)
            if job.job_id is None:
                return
            if job.kind == "cancelled":
                await asyncio.sleep(self._chance.uniform(0.0, 3.0))
                await self._insist(lambda: self._cancel(job))
            await self._insist(lambda: self._wait(job))
        except Exception as error:
            self.tally.problems.append(f"job {job.job_id} ({job.kind}): {error!r}")

    async def _submit(self, job: SoakJob) -> int | None:
        """Submit a job and return its id, None if it has no key and its fate is unknown."""
        while True:
            form = aiohttp.FormData(quote_fields=False)
            form.add_field("user_id", str(job.user))
            form.add_field("service", "example")
            for name, content in {"run.sh": job.script(self._log).encode(), **job.files}.items():
                form.add_field(name, content, filename=name)
            headers = {"Idempotency-Key": job.key} if job.key else {}
            try:
                async with self._session.post(
                    f"{self.url}/upload", data=form, headers=headers
                ) as response:
                    answer = await response.json()
                if response.status in (200, 201):
                    return int(answer["id"])
                if response.status < 500:
                    raise AssertionError(f"refused: {answer}")
            except (aiohttp.ClientError, TimeoutError):
                pass
            if not job.key:
                return None
            await asyncio.sleep(RETRY_S)

    async def _insist(self, step: Callable[[], Awaitable[bool]]) -> None:
        while True:
            try:
                if await step():
                    return
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(RETRY_S)

    async def _cancel(self, job: SoakJob) -> bool:
        async with self._session.post(f"{self.url}/terminate/{job.job_id}") as response:
            answer = await response.json()
        if response.status == 200:
            job.cancelled_at = now()
            left = await asyncio.to_thread(processes_of, job.token)
            if left:
                self.tally.problems.append(f"job {job.job_id} was cancelled and left {left}")
        if response.status not in (200, 409) and response.status < 500:
            raise AssertionError(f"cancel was answered {response.status}: {answer}")
        return response.status in (200, 409)

    async def _wait(self, job: SoakJob) -> bool:
        url = f"{self.url}/download/{job.job_id}"
        async with self._session.get(url, params={"wait": "20"}) as response:
            if response.content_type == "application/zip":
                body = await response.read()
                job.status = "Completed"
            else:
                answer: dict[str, Any] = await response.json()
                if response.status != 200:
                    if response.status < 500:
                        raise AssertionError(f"acknowledged, and now {answer}")
                    return False
                job.status, job.message = answer["status"], answer["message"]
        if job.status not in FINAL:
            return False
        if job.status == "Failed" and job.message == "run.sh exited with code 7":
            async with self._session.get(f"{self.url}/download_partial/{job.job_id}") as response:
                body = await response.read()
                if response.status >= 500:
                    return False
        elif job.status != "Completed":
            job.done = True
            return True
        self.tally.problems += await asyncio.to_thread(wrong_results, job, body)
        self.tally.results += 1
        job.done = True
        return True

    async def sample_quotas(self, database: Path) -> None:
        """Sample the counts of active jobs until cancelled."""
        while True:
            await asyncio.sleep(SAMPLE_S)
            try:
                counts = await asyncio.to_thread(_active, database)
            except sqlite3.Error:
                continue  # the server is away
            self.tally.samples += 1
            self.tally.most_of_user = max(self.tally.most_of_user, *counts, 0)
            self.tally.most_of_service = max(self.tally.most_of_service, sum(counts))


def _active(database: Path) -> list[int]:
    """Count the active jobs of each user at one moment."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=1)) as connection:
        rows = connection.execute(
            "SELECT count(*) FROM jobs WHERE status IN"
            " ('Processing', 'Submitted', 'Running', 'Unknown') GROUP BY user_id"
        )
        return [count for (count,) in rows.fetchall()] or [0]


def processes_of(mark: str) -> list[str]:
    """List living processes whose command line or work folder contains ``mark``."""
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            workspace = process.environ().get("JO_WORKSPACE", "")
            if (mark in words or mark in workspace) and process.status() != "zombie":
                found.append(f"{process.pid} {words[:80]}")
        except psutil.Error:
            continue
    return found
