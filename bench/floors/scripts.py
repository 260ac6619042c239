"""Speed of ``bash run.sh``, which every job executes once."""

import os
import shutil
import threading
import time
from pathlib import Path

SCRIPT = "echo done > result.txt\n"
"""The trivial job: one shell, one file, no other process."""


def spawn_ms(folder: Path) -> float:
    """Measure one ``bash run.sh`` from its start to its exit status."""
    command = _command(folder)
    begun = time.perf_counter()
    _run(*command)
    return (time.perf_counter() - begun) * 1000


def per_second(folder: Path, runs: int, parallel: int) -> float:
    """Measure about ``runs`` times ``bash run.sh``, ``parallel`` at a time.

    Threads with ``posix_spawn`` start a third more processes a second than ``xargs -P``: the
    floor must show the limit of the machine, not of a tool.
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
    """Return a command that does what the trivial job does, always to the same file."""
    script = folder / "run.sh"
    script.write_text(SCRIPT.replace("result.txt", f"'{folder}/result.txt'"))
    return shutil.which("bash") or "/bin/bash", str(script)


def _run(bash: str, script: str) -> None:
    environment = {"PATH": os.defpath, "LANG": "C.UTF-8"}
    pid = os.posix_spawn(bash, ["bash", script], environment)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
        raise RuntimeError("bash run.sh failed")
