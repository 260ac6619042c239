"""Clients that generators make of the OpenAPI document are built, and that in Python is used.

OPENAPI_GENERATOR names the JAR of openapi-generator-cli; the other tools are those on PATH.
"""

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from harness import Service

DOCUMENTS = Path(__file__).parents[1] / "docs" / "openapi"
DOCUMENT = DOCUMENTS / "jo-server.json"
VARIABLE = "OPENAPI_GENERATOR"
TIMEOUT_S = 240

pytestmark = pytest.mark.slow
generated = pytest.mark.skipif(
    VARIABLE not in os.environ, reason=f"{VARIABLE} names no JAR of openapi-generator"
)

USE = """
import sys
import time
import jo_generated

server = jo_generated.ApiClient(jo_generated.Configuration(host=sys.argv[1]))
jobs = jo_generated.JobsApi(server)
submitted = jobs.submit(
    file=[("run.sh", b"wc -c < input.txt > size.txt"), ("input.txt", b"12345")],
    service="example",
    user_id=1,
    time_limit="5m",
)
while not (job := jobs.job(submitted.id)).ended_at:
    time.sleep(0.1)
assert job.status == "Completed", job
answer = jobs.download_without_preload_content(submitted.id, wait=60)
open("results.zip", "wb").write(answer.data)
"""


def needed(tool: str) -> str:
    """Return the path of a program; skip the test without it."""
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"no {tool} here")
    return found


async def run(folder: Path, *command: str | Path) -> None:
    """Run a command in a folder, and fail with its output."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    assert process.returncode == 0, output.decode(errors="replace")[-3000:]


async def generate(language: str, folder: Path) -> Path:
    """Generate a client of jo-server in ``language``; return its folder."""
    options = ("-i", DOCUMENT, "-g", language, "-o", language, "--package-name", "jo_generated")
    await run(folder, needed("java"), "-jar", os.environ[VARIABLE], "generate", *options)
    return folder / language


@generated
async def test_client_in_python_submits_a_job_and_fetches_its_results(
    server: Service, tmp_path: Path
) -> None:
    client = await generate("python", tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    await run(tmp_path, sys.executable, "-m", "venv", tmp_path / "venv")
    await run(tmp_path, python, "-m", "pip", "install", "-q", client)
    await run(tmp_path, python, "-c", USE, server.url)
    await run(tmp_path, "unzip", "-q", "results.zip", "-d", "results")
    assert (tmp_path / "results" / "size.txt").read_text().strip() == "5"


@generated
async def test_client_in_go_is_built(tmp_path: Path) -> None:
    go = needed("go")
    client = await generate("go", tmp_path)
    await run(client, go, "build", "-mod=mod", "./...")


@generated
async def test_client_in_typescript_is_built(tmp_path: Path) -> None:
    tsc = needed("tsc")
    client = await generate("typescript-fetch", tmp_path)
    options = ("--noEmit", "--strict", "--target", "es2020", "--moduleResolution", "node")
    await run(client, tsc, *options, "index.ts")


async def test_types_of_openapi_typescript_are_valid(tmp_path: Path) -> None:
    tsc = needed("tsc")
    await run(tmp_path, needed("openapi-typescript"), DOCUMENT, "-o", "server.d.ts")
    await run(tmp_path, tsc, "--noEmit", "--strict", "server.d.ts")


async def test_spectral_has_no_warnings_about_the_documents() -> None:
    documents = sorted(DOCUMENTS.glob("*.json"))
    spectral = needed("spectral")
    await run(DOCUMENTS.parents[1], spectral, "lint", "--fail-severity", "warn", *documents)
