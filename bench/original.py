"""Compares both services with the original, in turns, on the same machine.

Run it as ``make bench-original ORIGINAL_BINARY=…``, on a machine that does nothing else. The
original is release 2.2.3 of job-orchestrator, built from its crate.
"""

import asyncio
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psutil

from bench import machine
from bench.content import text_block
from bench.counting.cpu import cpu_seconds
from bench.http import Answer, Connection, Form, UnexpectedAnswer
from bench.journal import journalled
from bench.services import Service, pair

VARIABLE = "ORIGINAL_BINARY"
RELEASE = "2.2.3"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN = "<!-- original: begin (written by `make bench-original`) -->\n"
END = "<!-- original: end -->\n"

PARALLEL = 10
"""Jobs that run concurrently: RUNS_PER_USER and MAX_RUNS of both, and SLOTS of jo-client."""

POLL_S = 0.02
"""The original has to be polled; jo-server answers ``?wait=`` when the job has ended."""

TIMEOUT_S = 300.0
END_TIMEOUT_S = 30.0
UNFINISHED = ("Queued", "Processing", "Submitted", "Prepared", "Running")
TRAP = "#!/bin/bash\ntrap 'echo $? > .orchestrator.exit' EXIT\n"
"""The original learns the end of a script from this file only."""

TRIVIAL = f"{TRAP}echo done > result.txt\n".encode()
LARGE = f"{TRAP}cksum atoms.pdb > result.txt\n".encode()
FIELDS = {"user_id": "1", "service": "bench"}


@dataclass(frozen=True)
class Sizes:
    """Amount of work of a round."""

    jobs: int = 20
    parallel_jobs: int = 100
    idle_s: float = 10.0
    settle_s: float = 3.0
    large_bytes: int = 100_000_000


ROWS = {
    "latency_ms": ("a trivial job, from POST to the ZIP", "ms"),
    "rate": (f"trivial jobs, {PARALLEL} at a time", "jobs/s"),
    "server_ms": ("CPU time of the server, for a trivial job", "ms"),
    "client_ms": ("CPU time of the client, for a trivial job with its script", "ms"),
    "server_idle": ("CPU of the server without jobs", "% of a core"),
    "client_idle": ("CPU of the client without jobs", "% of a core"),
    "server_mib": ("memory of the server without jobs", "MiB"),
    "client_mib": ("memory of the client without jobs", "MiB"),
    "large_s": ("a job with 100 MB of text, from POST to the ZIP", "s"),
    "large_cpu_s": ("CPU time of both for that job", "s"),
    "server_peak_mib": ("peak memory of the server", "MiB"),
    "client_peak_mib": ("peak memory of the client", "MiB"),
}

Running = tuple[Service, Service]
"""A server and its client."""


@asynccontextmanager
async def ours(folder: Path) -> AsyncIterator[Running]:
    """Run jo-server and jo-client."""
    async with pair(folder, slots=PARALLEL) as services:
        yield services.server, services.client


@asynccontextmanager
async def original(folder: Path) -> AsyncIterator[Running]:
    """Run a server and a client of the original."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(_original("client", folder / "client", {}))
        settings = {
            "SERVICE_BENCH_UPLOAD_URL": f"{client.url}/submit",
            "SERVICE_BENCH_DOWNLOAD_URL": f"{client.url}/retrieve",
            "SERVICE_BENCH_RUNS_PER_USER": str(PARALLEL),
            "SERVICE_BENCH_MAX_RUNS": str(PARALLEL),
        }
        server = await stack.enter_async_context(_original("server", folder / "server", settings))
        yield server, client


SIDES: Mapping[str, Callable[[Path], AbstractAsyncContextManager[Running]]] = {
    "original": original,
    "here": ours,
}


@asynccontextmanager
async def _original(role: str, folder: Path, settings: Mapping[str, str]) -> AsyncIterator[Service]:
    """Run a service of the original in ``folder`` until the context ends."""
    (folder / "data").mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "log"
    with log.open("wb") as output:
        started = await asyncio.create_subprocess_exec(
            *(os.environ[VARIABLE], role),
            cwd=folder,
            env={"PATH": os.environ["PATH"], "PORT": str(port), **settings},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        async with asyncio.timeout(END_TIMEOUT_S):
            while not _listens(port):  # noqa: ASYNC110 (there is no event)
                await asyncio.sleep(POLL_S)
        yield Service(f"http://127.0.0.1:{port}", folder, log, psutil.Process(started.pid))
    finally:
        started.kill()
        await asyncio.wait_for(started.wait(), END_TIMEOUT_S)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def measure(folder: Path, side: str, sizes: Sizes) -> dict[str, float]:
    """Run a fresh server and client, and return the figures of one round."""
    trivial = Form.of(FIELDS, {"run.sh": TRIVIAL})
    async with SIDES[side](folder) as (server, client), AsyncExitStack() as stack:
        portals = [await stack.enter_async_context(Connection(server.url)) for _ in range(PARALLEL)]
        await run_job(portals[0], trivial)
        found = {"latency_ms": 1000 * await _latency_s(portals[0], trivial, sizes.jobs)}
        before = [cpu_seconds(each) for each in (server, client)]
        found["rate"] = await _rate(portals, trivial, sizes.parallel_jobs)
        for name, each, used in zip(("server", "client"), (server, client), before, strict=True):
            spent = cpu_seconds(each).since(used)
            found[f"{name}_ms"] = 1000 * (spent.own + spent.started) / sizes.parallel_jobs
        await asyncio.sleep(sizes.settle_s)
        found |= await _idle(server, client, sizes.idle_s)
        found |= await _large(server, client, sizes.large_bytes)
    return found


async def run_job(portal: Connection, form: Form) -> float:
    """Run a job from POST to its ZIP, and return the seconds that it took."""
    begun = time.perf_counter()
    job = await portal.submit(form)
    async with asyncio.timeout(TIMEOUT_S):
        while not _has_ended(await portal.get(f"/download/{job}?wait=60")):  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
    return time.perf_counter() - begun


def _has_ended(answer: Answer) -> bool:
    if answer.content_type == "application/zip":
        return True
    if answer.status != 200 or answer.json().get("status") not in UNFINISHED:
        raise UnexpectedAnswer(f"{answer.status}: {answer.body[:300]!r}")
    return False


async def _latency_s(portal: Connection, form: Form, jobs: int) -> float:
    return statistics.median([await run_job(portal, form) for _ in range(jobs)])


async def _rate(portals: Sequence[Connection], form: Form, jobs: int) -> float:
    """Run jobs, one after the other on each connection, and return the jobs per second."""
    left = iter(range(jobs))
    begun = time.perf_counter()

    async def work(portal: Connection) -> None:
        for _ in left:
            await run_job(portal, form)

    async with asyncio.TaskGroup() as group:
        for portal in portals:
            group.create_task(work(portal))
    return jobs / (time.perf_counter() - begun)


async def _idle(server: Service, client: Service, seconds: float) -> dict[str, float]:
    found = {}
    before = [cpu_seconds(each) for each in (server, client)]
    await asyncio.sleep(seconds)
    for name, each, used in zip(("server", "client"), (server, client), before, strict=True):
        spent = cpu_seconds(each).since(used)
        found[f"{name}_idle"] = 100 * (spent.own + spent.started) / seconds
        found[f"{name}_mib"] = each.process.memory_info().rss / 2**20
    return found


async def _large(server: Service, client: Service, size: int) -> dict[str, float]:
    """Run a job with a large file of text."""
    block = text_block()
    content = (block * (size // len(block) + 1))[:size]
    form = Form.of(FIELDS, {"run.sh": LARGE, "atoms.pdb": content})
    before = [cpu_seconds(each) for each in (server, client)]
    async with Connection(server.url) as portal:
        found = {"large_s": await run_job(portal, form)}
    spent = [
        cpu_seconds(each).since(used) for each, used in zip((server, client), before, strict=True)
    ]
    found["large_cpu_s"] = sum(each.own + each.started for each in spent)
    for name, each in (("server", server), ("client", client)):
        found[f"{name}_peak_mib"] = _peak_mib(each)
    return found


def _peak_mib(service: Service) -> float:
    """Return the largest resident memory that a service has had (proc(5), ``VmHWM``)."""
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def table(rounds: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Format the medians of both sides."""
    lines = ["| what | original | here |", "| --- | ---: | ---: |"]
    for key, (what, unit) in ROWS.items():
        cells = [
            f"{_figure(statistics.median(found[key] for found in rounds[side]))} {unit}"
            for side in SIDES
        ]
        lines.append(f"| {what} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"


def _figure(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}" if value < 1 else f"{value:.3g}"


def write_into(page: Path, about: Mapping[str, Any], rounds: int, text: str) -> None:
    """Replace the text between the markers in a page of the documentation."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    head = (
        f"Release {RELEASE} of the original. {about['at']}, {about['cores']} cores"
        f" ({about['cpu']}), {about['memory_gib']} GiB, {about['file_system']}, Linux"
        f" {about['kernel']}, Python {about['python']}, load {about['load_average'][0]} before the"
        f" run. Medians of {rounds} rounds, in turns. {machine.warning(about)}"
    )
    page.write_text(f"{before}{BEGIN}{head.strip()}\n\n{text}{END}{after}")


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder for temporary files, on a disk.",
)
def main(rounds: int, folder: Path | None) -> None:
    """Measure both in turns, and write the medians to docs/performance.md."""
    if not os.environ.get(VARIABLE):
        sys.exit(f"Set {VARIABLE} to the program of release {RELEASE} of the original")
    found: dict[str, list[Mapping[str, float]]] = {side: [] for side in SIDES}
    with (
        tempfile.TemporaryDirectory(prefix="jo-bench-", dir=folder) as scratch,
        journalled(Path(scratch)) as disk,
    ):
        about = machine.describe(disk)
        for number in range(rounds):
            for side in SIDES:
                with tempfile.TemporaryDirectory(dir=disk) as fresh:
                    found[side].append(asyncio.run(measure(Path(fresh), side, Sizes())))
                click.echo(f"round {number + 1}: {side}: {found[side][-1]}", err=True)
    text = table(found)
    write_into(PAGE, about, rounds, text)
    click.echo(text, nl=False)
    if warning := machine.warning(about):
        click.echo(f"WARNING: {warning}")


if __name__ == "__main__":
    main()
