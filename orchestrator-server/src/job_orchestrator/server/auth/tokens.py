"""Valid tokens in memory, reloaded when the token file changes."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from job_orchestrator.common.errors import StartupError, Unauthorized
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.server.auth.token_file import Token, TokenFileUnusable, digest, read_tokens
from job_orchestrator.server.model import EVERYBODY, ClientGrant, Principal

logger = logging.getLogger(__name__)


class Tokens:
    """The tokens that are valid now. With ``path`` None the server requires no tokens.

    A check of the file is good for ``fresh_s`` seconds; a revoked token is accepted for so long at
    most. ``clock`` returns monotonic seconds, ``now`` seconds since the epoch.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        fresh_s: float,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self._fresh_s = fresh_s
        self._clock = clock
        self._now = now
        self._known: Mapping[str, Token] = {}
        self._version: tuple[int, int, int] | None = None
        self._problem = ""
        self._checked_at = float("-inf")
        self._refreshing = asyncio.Lock()
        # Functions that abort requests in progress, by the hash of their token.
        self._in_use: dict[str, set[Callable[[], None]]] = {}

    @property
    def active(self) -> int:
        """Number of tokens that requests in progress have."""
        return len(self._in_use)

    async def start(self) -> None:
        """Read the file for the first time. Raises ``StartupError`` if it can't be used."""
        if self.path is None:
            return
        await self._refresh(self.path)
        if self._problem:
            raise StartupError(
                f"API_TOKENS_FILE: {self._problem}. It must be a file that jo-server token create "
                "has written"
            )

    async def principal(self, token: str | None) -> Principal:
        """Return the principal of a token. Raises ``Unauthorized``."""
        if self.path is None:
            return EVERYBODY
        if token is None:
            raise Unauthorized("A token is needed: Authorization: Bearer TOKEN")
        hashed = digest(token)
        if self._clock() - self._checked_at >= self._fresh_s or hashed not in self._known:
            await self._refresh(self.path)
        known = self._valid(hashed)
        if known is None:
            raise Unauthorized("This token is not known, was revoked or has expired")
        if known.services is None:
            return Principal(known.user_id)
        grant = ClientGrant(frozenset(known.services), known.uses, known.sha256)
        return Principal(known.user_id, grant=grant)

    @property
    def known(self) -> Collection[str]:
        """Hashes of the tokens in the file, those that have expired included."""
        return self._known.keys()

    @contextmanager
    def in_use(self, token: str | None, abort: Callable[[], None]) -> Iterator[None]:
        """Call ``abort`` if the token becomes invalid during the block."""
        if self.path is None or token is None:
            yield
            return
        hashed = digest(token)
        aborts = self._in_use.setdefault(hashed, set())
        aborts.add(abort)
        try:
            yield
        finally:
            aborts.discard(abort)
            if not aborts and self._in_use.get(hashed) is aborts:
                del self._in_use[hashed]

    async def run_pass(self) -> None:
        """Abort requests, mostly event streams, whose token is no longer valid."""
        if self.path is None or not self._in_use:
            return
        await self._refresh(self.path)
        for hashed, aborts in list(self._in_use.items()):
            if self._valid(hashed) is None:
                for abort in tuple(aborts):
                    abort()

    def _valid(self, hashed: str) -> Token | None:
        known = self._known.get(hashed)
        return None if known is None or known.has_expired(self._now()) else known

    async def _refresh(self, path: Path) -> None:
        """Read the file if it has changed. If it is unusable, all tokens are refused."""
        async with self._refreshing:
            version = await in_thread(_version_on_disk, path)
            self._checked_at = self._clock()
            if version is not None and version == self._version and not self._problem:
                return
            try:
                tokens = await in_thread(read_tokens, path)
            except TokenFileUnusable as error:
                if str(error) != self._problem:
                    logger.error("No token is valid: %s", error)
                self._known, self._problem = {}, str(error)
            else:
                self._known = {token.sha256: token for token in tokens}
                self._version, self._problem = version, ""
                logger.info("%d API tokens are loaded", len(tokens))


def _version_on_disk(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns
