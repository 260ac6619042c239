"""Container engine for the tests: podman with its storage in a temporary folder."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine import TIMEOUT_S, Engine

TOOLS = ("buildah", "podman", "runc", "netavark", "aardvark-dns", "iptables")
BASE = "docker.io/library/python:3.12-slim"


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Provide the engine; remove its images, containers and networks at the end."""
    folders = os.pathsep.join([os.environ["PATH"], "/usr/lib/podman"])
    missing = [tool for tool in TOOLS if shutil.which(tool, path=folders) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("engine")
    engine = Engine({**os.environ, **_configuration(folder)})
    try:
        _provide_base(engine, folder)
        yield engine
    finally:
        engine.run("podman", "system", "reset", "--force", check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _configuration(folder: Path) -> dict[str, str]:
    """Configure podman for machines without a service manager and without cgroup delegation."""
    storage, containers = folder / "storage.conf", folder / "containers.conf"
    storage.write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n'
    )
    containers.write_text(
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        '[network]\nnetwork_backend = "netavark"\n'
        '[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n'
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {
        "CONTAINERS_STORAGE_CONF": str(storage),
        "CONTAINERS_CONF": str(containers),
        "PATH": path,
        "TMPDIR": str(folder),
    }


def _provide_base(engine: Engine, folder: Path) -> None:
    """Pull the base image; if no registry is reachable, build one from Debian packages."""
    pulled = subprocess.run(
        ["podman", "pull", "-q", BASE],
        env=engine.environment,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if pulled.returncode == 0:
        return
    if shutil.which("mmdebstrap") is None:
        pytest.skip(f"{BASE} can't be pulled, and mmdebstrap is not installed to make one")
    tar = folder / "base.tar"
    hooks = ['rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED; ln -s python3 "$1"/usr/bin/python']
    for name in ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf"):
        if Path(name).exists():
            hooks.append(f"upload {name} {name}")
    engine.run(
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        "--include=python3,python3-venv,python3-pip,ca-certificates",
        *(f"--customize-hook={hook}" for hook in hooks),
        "bookworm",
        str(tar),
    )
    engine.run("podman", "import", "-q", str(tar), BASE)
    tar.unlink()


@pytest.fixture(scope="session")
def images(engine: Engine) -> dict[str, int]:
    """Build both images with the names of compose.yaml; return their sizes in bytes."""
    sizes = {}
    for name in ("jo-server", "jo-client"):
        dockerfile = f"orchestrator-{name.removeprefix('jo-')}/Dockerfile"
        engine.run(
            # The OCI format has no health checks.
            *("buildah", "bud", "--format", "docker", "--isolation", "chroot", "--network", "host"),
            *("-f", dockerfile, "-t", f"localhost/{name}", "."),
        )
        (image,) = json.loads(engine.run("podman", "image", "inspect", f"localhost/{name}"))
        sizes[name] = image["Size"]
    return sizes


@pytest.fixture(scope="session")
def composed(engine: Engine, images: dict[str, int]) -> Iterator[dict[str, str]]:
    """Start the services of compose.yaml; return the names of the containers by service."""
    compose = ("podman-compose", "--project-name", "jotest")
    try:
        engine.run(*compose, "up", "-d", "--no-build")
        names = engine.run("podman", "ps", "--format", "{{.Names}}").split()
        yield {s: next(n for n in names if s in n) for s in ("server", "client")}
    finally:
        engine.run(*compose, "down", "-v", check=False)
