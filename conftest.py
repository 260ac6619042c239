"""Fixtures and hooks for the tests of all folders."""

import os
import signal
from collections.abc import Iterator

import psutil
import pytest

from skip_limit import watch_skips


def pytest_configure(config: pytest.Config) -> None:
    """Apply the list of allowed skips, and restore the handlers of SIGINT and SIGQUIT.

    Shells ignore these signals for background jobs, and children inherit that.
    """
    watch_skips(config)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN:
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Check at the end of the session that none of its service processes is left.

    Defined here, so that it starts before all other fixtures and ends after them.
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
