"""Limit on skipped tests, because a skipped test proves nothing.

``ALLOWED_SKIPS`` names a file with one reason a line (a regular expression for the complete
reason); ``#`` starts a comment. Any other reason fails the run. Without the variable, tests may be
skipped for any reason, as on a laptop.
"""

import os
import re
from pathlib import Path

import pytest

VARIABLE = "ALLOWED_SKIPS"


class SkipLimit:
    """Plugin of pytest, registered in the process that receives the reports of all workers."""

    def __init__(self, allowed: Path) -> None:
        lines = (line.partition("#")[0].strip() for line in allowed.read_text().splitlines())
        self._allowed = [re.compile(line) for line in lines if line]
        self._unexpected: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Check the reason of a skipped test."""
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        where = report.longrepr
        reason = where[2] if isinstance(where, tuple) else str(where)
        reason = reason.removeprefix("Skipped: ")
        if not any(allowed.fullmatch(reason) for allowed in self._allowed):
            self._unexpected.append(f"{report.nodeid}: {reason}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the run if a test was skipped for another reason."""
        if self._unexpected:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """List these tests."""
        if self._unexpected:
            terminalreporter.section(f"skipped for a reason that {VARIABLE} does not list")
            for line in self._unexpected:
                terminalreporter.line(line)


def watch_skips(config: pytest.Config) -> None:
    """Register the plugin if there is a list."""
    allowed = os.environ.get(VARIABLE)
    if allowed and not hasattr(config, "workerinput"):
        config.pluginmanager.register(SkipLimit(Path(allowed)))
