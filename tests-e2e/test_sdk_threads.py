"""Synchronous client of the library with real services: threads, forks, callbacks."""

import asyncio
import sys
import threading
from pathlib import Path

import pytest

from harness import Service, content
from job_orchestrator.sdk import (
    Client,
    JobStatus,
)

ECHO = b"cat in/x.txt > out.txt\n"


def client_threads() -> set[threading.Thread]:
    """Return the background threads of synchronous clients."""
    return {thread for thread in threading.enumerate() if thread.name == "jo-api"}


async def test_threads_share_one_synchronous_client(server: Service, tmp_path: Path) -> None:
    others = client_threads()
    with Client(server.url) as client:

        def run(number: int) -> bytes:
            script = b"echo line %d; echo %d > out.txt\n" % (number, number)
            job = client.submit("example", {"run.sh": script}, user_id=number)
            assert client.wait(job.id).status is JobStatus.COMPLETED
            assert b"".join(client.logs(job.id, follow=True)) == b"line %d\n" % number
            return content(client.download(job.id, tmp_path / f"{number}.zip"), "out.txt")

        results = await asyncio.gather(*(asyncio.to_thread(run, n) for n in range(8)))
        assert results == [b"%d\n" % n for n in range(8)]
        listed = await asyncio.to_thread(lambda: list(client.jobs(status=JobStatus.COMPLETED)))
        assert sorted(job.user_id for job in listed) == list(range(8))
        assert len(client_threads() - others) == 1
    assert client_threads() <= others


async def test_closing_the_synchronous_client_ends_calls_of_other_threads(server: Service) -> None:
    client = Client(server.url)
    job = await asyncio.to_thread(client.submit, "example", {"run.sh": b"sleep 300\n"}, user_id=1)
    watched = threading.Event()

    def watch() -> list[JobStatus]:
        seen = []
        for change in client.watch(job.id):
            seen.append(change.status)
            watched.set()
        return seen

    watching = asyncio.create_task(asyncio.to_thread(watch))
    await asyncio.to_thread(watched.wait, 20)
    await asyncio.to_thread(client.close)
    with pytest.raises(RuntimeError, match="was closed"):
        await watching
    assert (await asyncio.to_thread(client.cancel, job.id)).status is JobStatus.KILLED
    await asyncio.to_thread(client.close)


async def test_client_created_before_a_fork_works_in_both_processes(server: Service) -> None:
    script = f"""
import os
from job_orchestrator.sdk import Client

client = Client({server.url!r})
client.health()
child = os.fork()
print(client.health().status, len(client.services()), flush=True)
if child:
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await asyncio.wait_for(process.communicate(), 120)
    assert (process.returncode, output) == (0, b"healthy 1\n" * 2)


async def test_callback_that_calls_its_client_raises_instead_of_a_deadlock(
    server: Service,
) -> None:
    with Client(server.url) as client:

        def call_back(done: int, total: int | None) -> None:
            client.health()

        with pytest.raises(RuntimeError, match="A callback can't make calls of its client"):
            await asyncio.to_thread(
                client.submit, "example", {"run.sh": b"true"}, user_id=1, progress=call_back
            )
