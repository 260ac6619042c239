"""Scripts in bubblewrap: a file system, processes and a network of their own.

What the options mean: bwrap(1). The user's rights still count inside, so that a script which would
run as root is not sandboxed but refused.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from job_orchestrator.client.executors.local.settings import ExecutionSettings
from job_orchestrator.client.workspace.layout import Workspace
from job_orchestrator.common.errors import StartupError

TMP = Path("/tmp")  # noqa: S108 (that of the sandbox)
HELP_TIMEOUT_S = 10.0
_RESOLVER = "/run/systemd/resolve"


class Bubblewrap:
    """Wraps commands. ``data_path`` is hidden from them, but for the payload's own work folder."""

    def __init__(self, bwrap: str, data_path: Path, settings: ExecutionSettings) -> None:
        size = str(settings.sandbox_tmp_bytes)
        network = settings.sandbox_network
        self._data_path = str(data_path)
        self._before = [
            bwrap,
            *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"),
            *("--unshare-cgroup-try", *(() if network else ("--unshare-net",))),
            *_no_more_namespaces(bwrap),
            *("--hostname", "sandbox", "--cap-drop", "ALL", "--new-session", "--die-with-parent"),
            *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
            *("--size", size, "--tmpfs", "/dev/shm", "--size", size, "--tmpfs", str(TMP)),  # noqa: S108
            # Sockets of the machine's services, which would answer whoever may write to them.
            *("--tmpfs", "/run"),
            *(("--ro-bind-try", _RESOLVER, _RESOLVER) if network else ()),
            *("--tmpfs", self._data_path),
        ]

    def wrap(self, workspace: Workspace, command: Sequence[str]) -> list[str]:
        """The command that runs ``command`` in the sandbox, in the payload's work folder."""
        work = str(workspace.work)
        return [
            *self._before,
            *("--bind", work, work, "--chdir", work),
            # Made for the sandbox alone, and yet memory that it could fill.
            *("--remount-ro", "/dev", "--remount-ro", "/run", "--remount-ro", self._data_path),
            "--",
            *command,
        ]


def open_sandbox(
    settings: ExecutionSettings, data_path: Path, path: str | None
) -> Bubblewrap | None:
    """Find bubblewrap in ``path``, if the settings ask for it.

    Raises ``StartupError`` if there is none, or if scripts would run as root in it.
    """
    if not settings.sandbox:
        return None
    bwrap = shutil.which("bwrap", path=path)
    if bwrap is None:
        raise StartupError("SANDBOX is 'bwrap', and there is no bwrap here: install bubblewrap")
    if os.geteuid() == 0 and not settings.run_as:
        raise StartupError(
            "SANDBOX is 'bwrap', in which root would still read root's files:"
            " set RUN_AS, or start jo-client as another user"
        )
    return Bubblewrap(bwrap, data_path, settings)


def _no_more_namespaces(bwrap: str) -> tuple[str, ...]:
    """Most holes of the kernel were reached through namespaces; bubblewrap 0.8 can forbid more."""
    told = subprocess.run(  # noqa: S603
        [bwrap, "--help"], capture_output=True, text=True, timeout=HELP_TIMEOUT_S, check=False
    )
    return ("--disable-userns",) if "--disable-userns" in told.stdout + told.stderr else ()
