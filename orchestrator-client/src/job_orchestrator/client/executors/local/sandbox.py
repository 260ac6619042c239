"""Sandbox for scripts, made by bubblewrap: a private file system, process tree and network.

bwrap(1) explains the options. File permissions still apply inside the sandbox, and root would pass
them all; therefore the start is refused where scripts would run as root.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from job_orchestrator.client.executors.local.settings import ExecutionSettings
from job_orchestrator.client.workspace.layout import Workspace
from job_orchestrator.common.errors import StartupError

TMP = Path("/tmp")  # noqa: S108 (the one inside the sandbox)
HELP_TIMEOUT_S = 10.0
_RESOLVER = "/run/systemd/resolve"


class Bubblewrap:
    """Wraps commands. Of ``data_path`` a command sees only the work folder of its payload."""

    def __init__(self, bwrap: str, data_path: Path, settings: ExecutionSettings) -> None:
        size = str(settings.sandbox_tmp_bytes)
        network = settings.sandbox_network
        self._data_path = str(data_path)
        self._prefix = [
            bwrap,
            *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"),
            *("--unshare-cgroup-try", *(() if network else ("--unshare-net",))),
            *_no_more_namespaces(bwrap),
            *("--hostname", "sandbox", "--cap-drop", "ALL", "--new-session", "--die-with-parent"),
            *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
            *("--size", size, "--tmpfs", "/dev/shm", "--size", size, "--tmpfs", str(TMP)),  # noqa: S108
            # Hides the sockets of the machine's services, which answer any local process.
            *("--tmpfs", "/run"),
            *(("--ro-bind-try", _RESOLVER, _RESOLVER) if network else ()),
            *("--tmpfs", self._data_path),
        ]

    def wrap(self, workspace: Workspace, command: Sequence[str]) -> list[str]:
        """Return the command that runs ``command`` in the sandbox, in the payload's work folder."""
        work = str(workspace.work)
        return [
            *self._prefix,
            *("--bind", work, work, "--chdir", work),
            # These file systems are private to the sandbox, but in memory, which it could fill.
            *("--remount-ro", "/dev", "--remount-ro", "/run", "--remount-ro", self._data_path),
            "--",
            *command,
        ]


def open_sandbox(
    settings: ExecutionSettings, data_path: Path, path: str | None
) -> Bubblewrap | None:
    """Find bubblewrap in ``path``; None if the settings do not ask for it.

    Raises ``StartupError`` if bubblewrap is not installed, or if scripts would run as root.
    """
    if not settings.sandbox:
        return None
    bwrap = shutil.which("bwrap", path=path)
    if bwrap is None:
        raise StartupError("SANDBOX is 'bwrap', and bwrap was not found: install bubblewrap")
    if os.geteuid() == 0 and not settings.run_as:
        raise StartupError(
            "SANDBOX is 'bwrap', in which root could still read root's files:"
            " set RUN_AS, or start jo-client as another user"
        )
    return Bubblewrap(bwrap, data_path, settings)


def _no_more_namespaces(bwrap: str) -> tuple[str, ...]:
    """Return the option that forbids further namespaces; bubblewrap has it since version 0.8.

    Most local exploits of the kernel need a user namespace.
    """
    output = subprocess.run(  # noqa: S603
        [bwrap, "--help"], capture_output=True, text=True, timeout=HELP_TIMEOUT_S, check=False
    )
    return ("--disable-userns",) if "--disable-userns" in output.stdout + output.stderr else ()
