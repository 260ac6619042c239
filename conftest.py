"""Hooks and fixtures of the tests in all folders."""

import os
import signal
from collections.abc import Iterator

import psutil
import pytest

from skip_limit import watch_skips


def pytest_configure(config: pytest.Config) -> None:
    """Limit the reasons for skipped tests, and restore the default handlers of two signals.

    Shells start background jobs with SIGINT and SIGQUIT ignored, and child processes inherit that.
    The processes that tests start have to react to both signals.
    """
    watch_skips(config)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN:
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def no_process_is_left() -> Iterator[None]:
    """Check after the session that no service or script that it started still runs.

    Defined in this file, so that it is set up before, and torn down after, all other fixtures.
    """
    yield
    children = psutil.Process(os.getpid()).children(recursive=True)
    left = [p for p in children if _belongs_to_a_service(p)]
    assert not left, f"left running: {left}"


def _belongs_to_a_service(process: psutil.Process) -> bool:
    try:
        command = " ".join(process.cmdline())
        return process.status() != psutil.STATUS_ZOMBIE and (
            "jo-server" in command or "jo-client" in command or "JO_WORKSPACE" in process.environ()
        )
    except psutil.Error:
        return False
