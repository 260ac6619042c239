"""Demo: start both services on this machine, submit a job, wait for it and show its result.

Run by ``make demo``. All files are in temporary folders, which are removed at the end, also after
an error.
"""

import asyncio
import contextlib
import os
import re
import sys
import tempfile
import zipfile
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

from job_orchestrator.sdk import ApiError, AsyncClient, JobStatus

EXAMPLE = Path(__file__).parent / "interface"
FILES = ("run.sh", "contacts.py", "2oob_A.pdb", "2oob_B.pdb")
START_TIMEOUT_S = 30
JOB_TIMEOUT_S = 120
SHOWN_PAIRS = 5


class DemoFailed(Exception):
    """A step of the demo failed; the message says which. The logs of the services are printed."""


def say(text: str) -> None:
    """Print to standard output."""
    sys.stdout.write(text + "\n")


@contextlib.asynccontextmanager
async def service(name: str, folder: Path, settings: dict[str, str]) -> AsyncIterator[str]:
    """Run a service on a free port in ``folder`` and yield its URL."""
    bin_folder = Path(sys.executable).parent
    process = await asyncio.create_subprocess_exec(
        bin_folder / name,
        cwd=folder,
        env={
            "PATH": f"{bin_folder}:{os.environ.get('PATH', os.defpath)}",
            "HOST": "127.0.0.1",
            "PORT": "0",
            **settings,
        },
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        # Ctrl-C at the terminal must reach only the demo, which then stops its services.
        start_new_session=True,
    )
    log: deque[str] = deque(maxlen=30)
    url = asyncio.get_running_loop().create_future()
    reader = asyncio.create_task(follow(process, log, url))
    try:
        yield await asyncio.wait_for(url, START_TIMEOUT_S)
    except (DemoFailed, ApiError, TimeoutError):
        sys.stderr.write(f"--- last lines of {name} ---\n{''.join(log)}")
        raise
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        await reader


async def follow(
    process: asyncio.subprocess.Process, log: deque[str], url: asyncio.Future[str]
) -> None:
    """Keep the last lines of a service's log, and set ``url`` when the service logs it."""
    assert process.stderr is not None  # noqa: S101 (the process was started with a pipe)
    async for line in process.stderr:
        text = line.decode(errors="replace")
        log.append(text)
        found = re.search(r"listening on (\S+)", text)
        if found and not url.done():
            url.set_result(found[1])
    if not url.done():
        url.set_exception(DemoFailed("A service did not start"))


def show(archive: zipfile.ZipFile) -> None:
    """Print the number of pairs that the job found, and the first pairs as a table."""
    header, *pairs = [
        line.split("\t") for line in archive.read("contacts.tsv").decode().splitlines()
    ]
    say(f"\n{len(pairs)} residue pairs within 5.5 Å. The first {SHOWN_PAIRS}:\n")
    for row in [header, *pairs[:SHOWN_PAIRS]]:
        say("  " + "".join(cell.ljust(12) for cell in row).rstrip())


async def demo(client_folder: Path, server_folder: Path) -> None:
    """Run the example job with both services and print its result."""
    say("Starting jo-client and jo-server on free ports ...")
    async with service("jo-client", client_folder, {}) as client_url:
        settings = {
            "SERVICE_EXAMPLE_UPLOAD_URL": f"{client_url}/submit",
            "SERVICE_EXAMPLE_DOWNLOAD_URL": f"{client_url}/retrieve",
        }
        async with (
            service("jo-server", server_folder, settings) as server_url,
            AsyncClient(server_url) as api,
        ):
            say(f"jo-client {client_url}\njo-server {server_url}")
            files = [EXAMPLE / name for name in FILES]
            job = await api.submit("example", files, user_id=1)
            say(f"Submitted {', '.join(FILES)} as job {job.id}; waiting for its end ...")
            ended = await api.wait(job.id, timeout_s=JOB_TIMEOUT_S)
            if ended.status is not JobStatus.COMPLETED:
                raise DemoFailed(f"The job is {ended.status}: {ended.message}")
            with zipfile.ZipFile(
                await api.download(job.id, server_folder / "results.zip")
            ) as found:
                say(f"Results: {', '.join(found.namelist())}")
                show(found)


def main() -> None:
    """Run the demo. On failure the exit status is 1 and the reason is printed."""
    try:
        with (
            tempfile.TemporaryDirectory(prefix="jo-demo-client-") as client_folder,
            tempfile.TemporaryDirectory(prefix="jo-demo-server-") as server_folder,
        ):
            asyncio.run(demo(Path(client_folder), Path(server_folder)))
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; everything is stopped and removed")
    except (DemoFailed, ApiError, TimeoutError) as error:
        sys.exit(f"The demo failed: {error or 'no response in time'}")


if __name__ == "__main__":
    main()
