"""Skipped tests prove nothing: where a list of reasons is kept, any other reason fails the run.

``ALLOWED_SKIPS`` names the list, a file with one reason a line (a regular expression for all of
it); ``#`` begins a comment. Without it tests may be skipped for any reason, as on a laptop.
"""

import os
import re
from pathlib import Path

import pytest

VARIABLE = "ALLOWED_SKIPS"


class SkipLimit:
    """A plugin of pytest, to be registered where the reports of all workers arrive."""

    def __init__(self, allowed: Path) -> None:
        lines = (line.partition("#")[0].strip() for line in allowed.read_text().splitlines())
        self._allowed = [re.compile(line) for line in lines if line]
        self._unexpected: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Look at the reason of a skipped test."""
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        where = report.longrepr
        reason = where[2] if isinstance(where, tuple) else str(where)
        reason = reason.removeprefix("Skipped: ")
        if not any(allowed.fullmatch(reason) for allowed in self._allowed):
            self._unexpected.append(f"{report.nodeid}: {reason}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail if any was skipped that should not be."""
        if self._unexpected:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Tell which."""
        if self._unexpected:
            terminalreporter.section(f"skipped for a reason that {VARIABLE} does not list")
            for line in self._unexpected:
                terminalreporter.line(line)


def watch_skips(config: pytest.Config) -> None:
    """Hold this run to the list, if there is one."""
    allowed = os.environ.get(VARIABLE)
    if allowed and not hasattr(config, "workerinput"):
        config.pluginmanager.register(SkipLimit(Path(allowed)))
