"""Chooses how programs are started directly in their cgroups, and proves that it works here."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from job_orchestrator.client.errors import CgroupsUnavailable
from job_orchestrator.client.executors.local.cgroups.cgroup import Cgroup
from job_orchestrator.client.executors.local.cgroups.native_start import NativeStart
from job_orchestrator.client.executors.local.child import CgroupStarter, Program
from job_orchestrator.client.executors.local.fork_server.client import ForkServer

logger = logging.getLogger(__name__)

_ENDLESS = ("/bin/sh", "-c", "exec sleep 60")


def open_starter(probe: Cgroup, *, of_other_users: bool) -> CgroupStarter | None:
    """Return the fastest starter that works; None if there is none (kernels before 5.7).

    ``probe`` is an empty cgroup, and is empty again at the end. ``of_other_users`` says that
    programs run as other users, which the C library's posix_spawn cannot do.
    """
    candidates: list[Callable[[], CgroupStarter]] = [ForkServer]
    if not of_other_users:
        candidates.insert(0, NativeStart)
    for candidate in candidates:
        try:
            starter = candidate()
            try:
                _prove_that_it_works(starter, probe)
            except BaseException:
                starter.close()
                raise
        except (CgroupsUnavailable, OSError) as error:
            logger.debug("%s cannot start scripts here: %s", candidate.__name__, error)
        else:
            return starter
    logger.info("Scripts are moved into their cgroups, which is slower")
    return None


def _prove_that_it_works(starter: CgroupStarter, probe: Cgroup) -> None:
    """Start a process in a cgroup, and kill it by the cgroup.

    Raises ``CgroupsUnavailable``, ``OSError``.
    """
    with Path(os.devnull).open("wb") as output:
        descriptor = output.fileno()
        try:
            child = starter.start(
                Program(_ENDLESS, Path("/"), {"PATH": os.defpath}, descriptor, descriptor),
                probe.folder,
            )
        except (TimeoutError, ConnectionError):
            probe.kill()
            raise
    if child.pid not in probe.pids():
        child.kill()
        child.wait()
        raise CgroupsUnavailable("the process started in another cgroup")
    probe.kill()
    child.wait()
