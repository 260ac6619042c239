"""Limit on skipped tests: a test that is skipped for an unlisted reason fails the run.

The variable ``ALLOWED_SKIPS`` names a file with one reason a line: a regular expression that has to
match the whole reason. ``#`` begins a comment. Without the variable every reason is allowed.
"""

import os
import re
from pathlib import Path

import pytest

VARIABLE = "ALLOWED_SKIPS"


class SkipLimit:
    """Plugin for the pytest process that receives the reports of all workers."""

    def __init__(self, allowed: Path) -> None:
        lines = (line.partition("#")[0].strip() for line in allowed.read_text().splitlines())
        self._allowed = [re.compile(line) for line in lines if line]
        self._unexpected: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record a skipped test whose reason is not listed."""
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        where = report.longrepr
        reason = where[2] if isinstance(where, tuple) else str(where)
        reason = reason.removeprefix("Skipped: ")
        if not any(allowed.fullmatch(reason) for allowed in self._allowed):
            self._unexpected.append(f"{report.nodeid}: {reason}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the run if a test was skipped for an unlisted reason."""
        if self._unexpected:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """List the tests that were skipped for an unlisted reason."""
        if self._unexpected:
            terminalreporter.section(f"skipped for a reason that {VARIABLE} does not list")
            for line in self._unexpected:
                terminalreporter.line(line)


def watch_skips(config: pytest.Config) -> None:
    """Register the limit if the variable is set."""
    allowed = os.environ.get(VARIABLE)
    if allowed and not hasattr(config, "workerinput"):
        config.pluginmanager.register(SkipLimit(Path(allowed)))
