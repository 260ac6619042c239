"""compose.yaml unchanged: a job runs, and the hardening is effective inside the containers."""

import asyncio
import io
import json
import zipfile

import aiohttp
from engine import Engine

URL = "http://127.0.0.1:5000"
TIMEOUT_S = 60


async def _ready(http: aiohttp.ClientSession) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        # A container does not report that it listens.
        while True:
            try:
                async with http.get("/health") as response:
                    assert response.status == 200
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.2)


async def _run(script: str) -> zipfile.ZipFile:
    """Submit a job as a portal does, wait for its end, and return its results."""
    async with aiohttp.ClientSession(URL) as http:
        await _ready(http)
        form = aiohttp.FormData({"user_id": "1", "service": "example"})
        form.add_field("file", script.encode(), filename="run.sh")
        async with http.post("/upload", data=form) as response:
            job = (await response.json())["id"]
        async with http.get(f"/download/{job}", params={"wait": 50}) as response:
            assert response.content_type == "application/zip", await response.text()
            return zipfile.ZipFile(io.BytesIO(await response.read()))


async def test_job_runs_through_the_composed_services(composed: dict[str, str]) -> None:
    archive = await _run("#!/bin/bash\necho $((6 * 7)) > answer\n")
    assert archive.read("answer") == b"42\n"


async def test_script_is_confined_inside_its_container(composed: dict[str, str]) -> None:
    script = r"""#!/bin/bash
id -u > uid
grep -E '^(CapEff|CapPrm|NoNewPrivs)' /proc/self/status > status
touch /root-file 2> /dev/null && echo yes > wrote_root
touch /tmp/x && echo yes > wrote_tmp
cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max > pids 2> /dev/null
(exec 3<> "/dev/$(printf tcp)/192.0.2.1/80") 2> refused && echo yes > reached
exit 0
"""
    archive = await _run(script)
    names = archive.namelist()
    assert archive.read("uid") == b"1000\n"
    status = dict(line.split(":\t") for line in archive.read("status").decode().splitlines())
    assert int(status["CapEff"], 16) == 0
    assert int(status["CapPrm"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert "wrote_root" not in names
    assert "wrote_tmp" in names
    assert archive.read("pids").decode().split() == ["256"]
    assert "reached" not in names


def test_client_has_no_route_to_other_networks(engine: Engine, composed: dict[str, str]) -> None:
    routes = engine.inside(composed["client"], "cat", "/proc/net/route").splitlines()[1:]
    assert routes, "the client has no network at all"
    assert all(line.split()[1] != "00000000" for line in routes), "a default route"


async def test_health_checks_of_both_images_pass(engine: Engine, composed: dict[str, str]) -> None:
    async with aiohttp.ClientSession(URL) as http:
        await _ready(http)
    for container in composed.values():
        engine.run("podman", "healthcheck", "run", container)


def test_images_are_small_and_without_pip(
    engine: Engine, images: dict[str, int], composed: dict[str, str]
) -> None:
    (base,) = json.loads(
        engine.run("podman", "image", "inspect", "docker.io/library/python:3.12-slim")
    )
    for name, size in images.items():
        assert size - base["Size"] < 80_000_000, name
    for container in composed.values():
        listed = engine.inside(container, "ls", "/opt/jo/bin")
        assert "pip" not in listed
