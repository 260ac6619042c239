"""For the tests of all folders."""

import os
import signal
from collections.abc import Iterator

import psutil
import pytest


def pytest_configure() -> None:
    """Let Ctrl-C reach what the tests start, also where they run in the background.

    Shells let those ignore it, and what ignores a signal hands that on to its children.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """After the session no process of ours that it started lives, and so no port is open.

    Here, so that it begins before all others, and ends after them.
    """
    yield
    children = psutil.Process(os.getpid()).children(recursive=True)
    ours = [p for p in children if _is_ours(p)]
    assert not ours, f"left running: {ours}"


def _is_ours(process: psutil.Process) -> bool:
    try:
        command = " ".join(process.cmdline())
        return process.status() != psutil.STATUS_ZOMBIE and (
            "jo-server" in command or "jo-client" in command or "JO_WORKSPACE" in process.environ()
        )
    except psutil.Error:
        return False
