"""Floor for jobs: the time to run ``bash run.sh``, which every job needs."""

import os
import shutil
import threading
import time
from pathlib import Path

SCRIPT = "echo done > result.txt\n"
"""The trivial job: one shell, one file, no other process."""


def spawn_ms(folder: Path) -> float:
    """Return the milliseconds from the start of ``bash run.sh`` to its exit status."""
    command = _command(folder)
    begun = time.perf_counter()
    _run(*command)
    return (time.perf_counter() - begun) * 1000


def per_second(folder: Path, runs: int, parallel: int) -> float:
    """Return the rate of ``bash run.sh``, with ``parallel`` processes and about ``runs`` runs.

    Uses threads and ``posix_spawn``, which start a third more processes per second than
    ``xargs -P``: the floor is the limit of the machine, not of a tool.
    """
    command = _command(folder)
    each = max(1, runs // parallel)

    def work() -> None:
        for _ in range(each):
            _run(*command)

    threads = [threading.Thread(target=work) for _ in range(parallel)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return each * parallel / (time.perf_counter() - begun)


def _command(folder: Path) -> tuple[str, str]:
    """Return the shell and a script like the trivial job, which always writes the same file."""
    script = folder / "run.sh"
    script.write_text(SCRIPT.replace("result.txt", f"'{folder}/result.txt'"))
    return shutil.which("bash") or "/bin/bash", str(script)


def _run(bash: str, script: str) -> None:
    environment = {"PATH": os.defpath, "LANG": "C.UTF-8"}
    pid = os.posix_spawn(bash, ["bash", script], environment)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
        raise RuntimeError("bash run.sh failed")
