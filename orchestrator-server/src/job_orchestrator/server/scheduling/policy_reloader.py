"""Reloads the policy file when it changes. A bad one is logged, and the last good one stays."""

import logging
from collections.abc import Callable
from pathlib import Path

from job_orchestrator.common.errors import StartupError
from job_orchestrator.common.runtime.clock import steady_time
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.server.scheduling.policy_file import (
    Claimed,
    PolicyFile,
    PolicyFileInvalid,
    parse_policy,
)
from job_orchestrator.server.scheduling.rules import Rules

logger = logging.getLogger(__name__)

MAX_BYTES = 10_000_000


class PolicyReloader:
    """Keeps the terms of ``rules`` as the file says.

    ``claimed`` returns the members of the groups that issuers name. ``now`` returns seconds since
    the epoch.
    """

    def __init__(
        self,
        path: Path,
        rules: Rules,
        claimed: Callable[[], Claimed] = dict,
        now: Callable[[], float] = steady_time,
    ) -> None:
        self._path = path
        self._rules = rules
        self._claimed = claimed
        self._now = now
        self._file: PolicyFile | None = None
        self._version: tuple[int, int, int] | None = None

    async def start(self) -> None:
        """Read the file for the first time. Raises ``StartupError`` if it can't be used."""
        try:
            await self._read()
        except PolicyFileInvalid as error:
            raise StartupError(f"POLICY_FILE {self._path}: {error}") from error
        self._apply()

    async def run_pass(self) -> None:
        """Read the file if it has changed, and apply what has begun or ended since."""
        try:
            await self._read()
        except PolicyFileInvalid as error:
            logger.error(
                "The changed policy file is not used, the one before stays: %s: %s",
                self._path,
                error,
            )
        self._apply()

    def _apply(self) -> None:
        if self._file is None:
            return
        terms = self._file.terms_at(self._now(), self._claimed())
        if terms != self._rules.terms:
            self._rules.terms = terms
            logger.info(
                "The policy file has terms of %d users and limits of %d groups now",
                len(terms.users),
                len(terms.groups),
            )

    async def _read(self) -> None:
        """Read the file if it has changed. A version that is bad is not read again."""
        version = await in_thread(_version_on_disk, self._path)
        if version is not None and version == self._version:
            return
        if version is None and self._file is not None and self._version is None:
            return
        self._version = version
        self._file = await in_thread(_read, self._path)


def _version_on_disk(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _read(path: Path) -> PolicyFile:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise PolicyFileInvalid(f"It has more than {MAX_BYTES} bytes")
        return parse_policy(content.decode("utf-8"))
    except OSError as error:
        raise PolicyFileInvalid(f"It can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PolicyFileInvalid(f"It is not UTF-8, at byte {error.start}") from error
