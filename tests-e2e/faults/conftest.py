"""Fixtures of the tests that inject faults."""

import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from faults.proxy import Proxy
from faults.workload import Workload
from harness import Service

OpenProxy = Callable[[Service], Awaitable[Proxy]]
Mount = Callable[[str], Path]


@pytest.fixture
async def open_proxy() -> AsyncIterator[OpenProxy]:
    """Start a proxy in front of a service."""
    opened: list[Proxy] = []

    async def open_one(service: Service) -> Proxy:
        opened.append(await Proxy(service.url).open())
        return opened[-1]

    yield open_one
    for proxy in opened:
        proxy.resume()
        await proxy.close()


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mount a small file system; the test is skipped if mounting is not allowed."""
    mounted: list[Path] = []

    def make(size: str) -> Path:
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("file systems can't be mounted here")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def workload(tmp_path: Path) -> Workload:
    """Jobs whose scripts record every run."""
    return Workload(tmp_path / "runs")
