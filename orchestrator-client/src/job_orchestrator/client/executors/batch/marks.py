"""Marks: small files with which job scripts report their start and their end.

One listing of one folder finds the news of all jobs. So ends are known without the batch system,
also while it is down, and after it has forgotten the jobs.
"""

import contextlib
import math
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from job_orchestrator.common.storage.regular_file import open_regular_file

STARTED, EXIT = ".started", ".exit"
"""Endings of the names of marks; the beginning is the name of the job."""

_MAX_BYTES = 500


@dataclass(frozen=True)
class Mark:
    """What is known of a job by its marks. ``native_id`` and ``node`` may be empty.

    Times are seconds since the epoch, by the clock of the node. ``exit_code`` is None before the
    end, and as shells count.
    """

    started_at: float
    native_id: str = ""
    node: str = ""
    exit_code: int | None = None
    ended_at: float = 0.0


@dataclass(frozen=True)
class Marks:
    """The folder of all marks. All methods block: call them in a thread."""

    folder: Path

    def prepare(self) -> None:
        """Create the folder."""
        self.folder.mkdir(mode=0o700, exist_ok=True)

    def names(self) -> set[str]:
        """List the names of all files."""
        with os.scandir(self.folder) as entries:
            return {entry.name for entry in entries}

    def news(self, jobs: Mapping[str, bool]) -> dict[str, Mark]:
        """Return the marks of those of ``jobs`` that have one.

        The value is True for a job whose start is known: only its end is news.
        """
        present = self.names()
        found = {}
        for name, has_started in jobs.items():
            is_over = name + EXIT in present
            if is_over or (name + STARTED in present and not has_started):
                mark = self.read(name)
                if mark is not None:
                    found[name] = mark
        return found

    def read(self, name: str) -> Mark | None:
        """Read the marks of one job; None if there are none, or none that can be read."""
        started = self._words(name + STARTED, 3)
        begun = Mark(_time(started[1]), started[0], started[2]) if started else None
        ended = self._words(name + EXIT, 2)
        if not ended or not ended[0].isdigit():
            return begun
        ended_at = _time(ended[1])
        begun = begun or Mark(ended_at)
        return Mark(begun.started_at, begun.native_id, begun.node, int(ended[0]), ended_at)

    def remove(self, names: Iterable[str]) -> None:
        """Remove the marks of jobs."""
        for name in names:
            for ending in (STARTED, EXIT):
                (self.folder / f"{name}{ending}").unlink(missing_ok=True)

    def keep_only(self, prefix: str, names: Collection[str]) -> None:
        """Remove the marks of all jobs that begin with ``prefix`` and are not in ``names``."""
        for file in self.names():
            name = file.removesuffix(STARTED).removesuffix(EXIT)
            if name.startswith(prefix) and name not in names:
                (self.folder / file).unlink(missing_ok=True)

    def _words(self, file: str, count: int) -> list[str]:
        with contextlib.suppress(OSError):
            with open(open_regular_file(self.folder / file), "rb") as opened:  # noqa: PTH123
                words = opened.read(_MAX_BYTES).decode("utf-8", "replace").split()
            if len(words) == count:
                return words
        return []


def _time(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        return 0.0
    return seconds if math.isfinite(seconds) and 0 <= seconds <= 1e11 else 0.0
