"""Portal of the soak: submits, cancels, awaits and fetches jobs, with unlimited retries."""

import asyncio
import hashlib
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

MAX_UNFINISHED_JOBS = 24
"""More than the quotas allow to run, so that some jobs are always queued."""

RETRY_S = 0.3
SAMPLE_S = 0.05


@dataclass
class PortalRecord:
    """Jobs, problems and quota samples of the portal."""

    jobs: list[SoakJob] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    results: int = 0
    samples: int = 0
    max_active_of_user: int = 0
    max_active_of_service: int = 0


class SoakPortal:
    """Submits random jobs and follows each of them until it has ended."""

    def __init__(self, url: str, log: Path, rng: random.Random) -> None:
        self.url = url
        self.record = PortalRecord()
        self._log = log
        self._rng = rng
        self._following: set[asyncio.Task[None]] = set()
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=45))

    async def submit_until_cancelled(self) -> None:
        """Submit until cancelled. Submitted jobs are still followed afterwards."""
        while True:
            await asyncio.sleep(self._rng.uniform(0.0, 0.3))
            if len(self._following) < MAX_UNFINISHED_JOBS:
                job = next_job(self._rng)
                self.record.jobs.append(job)
                task = asyncio.create_task(self._follow(job))
                self._following.add(task)
                task.add_done_callback(self._following.discard)

    async def finish(self, timeout_s: float) -> None:
        """Wait until all jobs have ended, at most ``timeout_s``."""
        if self._following:
            await asyncio.wait(set(self._following), timeout=timeout_s)
        for task in set(self._following):
            task.cancel()

    async def confirm(self) -> None:
        """Check that nothing that was seen has been taken back: the ends and the results."""
        for job in self.record.jobs:
            if job.done:
                async with self._session.get(f"{self.url}/jobs/{job.job_id}") as response:
                    status = (await response.json()).get("status")
                if status != job.status:
                    self.record.problems.append(
                        f"job {job.job_id} ({job.kind}) was {job.status} and is {status}"
                    )
                elif status == "Completed":
                    url = f"{self.url}/download/{job.job_id}"
                    async with self._session.get(url) as response:
                        digest = hashlib.sha256(await response.read()).hexdigest()
                    if digest != job.digest:
                        self.record.problems.append(f"job {job.job_id} has other results now")
        await self._session.close()

    async def _follow(self, job: SoakJob) -> None:
        try:
            job.job_id = await self._submit(job)
            if job.job_id is None:
                return
            if job.kind == "cancelled":
                await asyncio.sleep(self._rng.uniform(0.0, 3.0))
                await self._retry(lambda: self._cancel(job))
            await self._retry(lambda: self._wait(job))
        except Exception as error:
            self.record.problems.append(f"job {job.job_id} ({job.kind}): {error!r}")

    async def _submit(self, job: SoakJob) -> int | None:
        """Submit a job and return its id; None if it has no key and may or may not exist."""
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
                    raise AssertionError(f"the submission was rejected: {answer}")
            except (aiohttp.ClientError, TimeoutError):
                pass
            if not job.key:
                return None
            await asyncio.sleep(RETRY_S)

    async def _retry(self, step: Callable[[], Awaitable[bool]]) -> None:
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
            left = await asyncio.to_thread(processes_with, job.token)
            if left:
                self.record.problems.append(
                    f"job {job.job_id} was cancelled and left processes: {left}"
                )
        # 202: the job will be ended when its client can be reached.
        if response.status not in (200, 202, 409) and response.status < 500:
            raise AssertionError(f"the cancellation was answered with {response.status}: {answer}")
        return response.status in (200, 202, 409)

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
                        raise AssertionError(f"an acknowledged job is answered with {answer}")
                    return False
                job.status, job.message = answer["status"], answer["message"]
        if job.status not in FINAL:
            return False
        job.ended_at = job.ended_at or now()
        if job.status == "Failed" and job.message == "run.sh exited with code 7":
            async with self._session.get(f"{self.url}/download_partial/{job.job_id}") as response:
                body = await response.read()
                if response.status >= 500:
                    return False
        elif job.status != "Completed":
            job.done = True
            return True
        job.digest = hashlib.sha256(body).hexdigest()
        self.record.problems += await asyncio.to_thread(wrong_results, job, body)
        self.record.results += 1
        job.done = True
        return True

    async def sample_quotas(self, database: Path) -> None:
        """Sample the numbers of active jobs until cancelled."""
        while True:
            await asyncio.sleep(SAMPLE_S)
            try:
                counts = await asyncio.to_thread(_active, database)
            except sqlite3.Error:
                continue  # the server is down
            self.record.samples += 1
            self.record.max_active_of_user = max(self.record.max_active_of_user, *counts, 0)
            self.record.max_active_of_service = max(self.record.max_active_of_service, sum(counts))


def _active(database: Path) -> list[int]:
    """Return the number of active jobs of each user in one snapshot."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=1)) as connection:
        rows = connection.execute(
            "SELECT count(*) FROM jobs WHERE status IN"
            " ('Processing', 'Submitted', 'Running', 'Unknown') GROUP BY user_id"
        )
        return [count for (count,) in rows.fetchall()] or [0]


def processes_with(mark: str) -> list[str]:
    """Return the running processes with ``mark`` in their command line or work folder."""
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
