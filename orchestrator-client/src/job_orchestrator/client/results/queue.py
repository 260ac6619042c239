"""Who packs when: what is small never waits behind what is large.

How large results are shows only while they are packed. So each packing begins in a small turn,
which is short: what outgrows it begins anew in one of the large turns, and meanwhile others have
the small one.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from job_orchestrator.client.errors import PackingTookTooLong
from job_orchestrator.common.runtime.threads import in_thread

R = TypeVar("R")

SMALL_BYTES = 64 << 20
SMALL_ENTRIES = 10_000
"""Files and folders: what a small turn is long enough for, well below a second of work."""

LEAST_LIMIT_S = 600.0
"""How long results may take to be packed in any case."""


class Turn:
    """Some packing under way, which tells of each step before it, so that it can be stopped.

    ``check_wanted`` raises for it; a turn does when it is used up.
    """

    def __init__(self, check_wanted: Callable[[], None]) -> None:
        self.check = check_wanted

    def find(self) -> None:
        """A file or folder was found."""
        self.check()

    def unpack(self, size: int) -> None:
        """So many bytes come next."""


class Outgrown(Exception):
    """What was to be packed in a small turn is large."""


class SmallTurn(Turn):
    """One that raises ``Outgrown``. It counts, and knows no time: on a busy machine nothing that is
    small must wait among what is large."""

    def __init__(self, check_wanted: Callable[[], None]) -> None:
        super().__init__(check_wanted)
        self._entries, self._bytes = SMALL_ENTRIES, SMALL_BYTES

    def find(self) -> None:
        super().find()
        self._entries -= 1
        if self._entries < 0:
            raise Outgrown

    def unpack(self, size: int) -> None:
        self._bytes -= size
        if self._bytes < 0:
            raise Outgrown


class LargeTurn(Turn):
    """One of ``limit_s``, then it raises ``PackingTookTooLong``."""

    def __init__(self, check_wanted: Callable[[], None], limit_s: float) -> None:
        end = time.monotonic() + limit_s

        def check() -> None:
            check_wanted()
            if time.monotonic() > end:
                raise PackingTookTooLong(
                    f"The results took longer than {limit_s:.0f} s to pack;"
                    " only the output of run.sh was kept"
                )

        super().__init__(check)


class Turns:
    """Gives turns: so many small ones at a time, and beside them so many large ones."""

    def __init__(self, small: int, large: int) -> None:
        self._small = asyncio.Semaphore(small)
        self._large = asyncio.Semaphore(large)

    async def pack(
        self,
        work: Callable[[Turn], R],
        check_wanted: Callable[[], None],
        given_up: asyncio.Event,
        limit_s: float,
    ) -> R:
        """Run ``work`` in a thread, when it is its turn, and anew if it outgrows a small one.

        Once it is ``given_up`` it has no turn to wait for, and hears of it by ``check_wanted``.
        """
        with contextlib.suppress(Outgrown):
            async with _turn(self._small, given_up):
                return await in_thread(lambda: work(SmallTurn(check_wanted)))
        async with _turn(self._large, given_up):
            return await in_thread(lambda: work(LargeTurn(check_wanted, limit_s)))


@contextlib.asynccontextmanager
async def _turn(turns: asyncio.Semaphore, given_up: asyncio.Event) -> AsyncIterator[None]:
    """Wait for a turn, or until none is needed because it is ``given_up``."""
    if not turns.locked():
        async with turns:
            yield
        return
    turn = asyncio.ensure_future(turns.acquire())
    end = asyncio.ensure_future(given_up.wait())
    try:
        await asyncio.wait({turn, end}, return_when=asyncio.FIRST_COMPLETED)
        yield
    finally:
        end.cancel()
        if not turn.cancel():
            turns.release()
