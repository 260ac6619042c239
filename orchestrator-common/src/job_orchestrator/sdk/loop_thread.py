"""An event loop in a thread of its own, which does a client's calls for all other threads.

A new loop for each call would open new connections each time, and could not stream.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from job_orchestrator.sdk.client import AsyncClient

R = TypeVar("R")

CLOSE_TIMEOUT_S = 10.0


class ClientClosed(RuntimeError):
    """The client was closed, by another thread."""

    def __init__(self) -> None:
        super().__init__("The client was closed during the call")


class LoopThread:
    """An ``AsyncClient`` in a thread with a running loop."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client
        self._loop = asyncio.new_event_loop()
        # Nothing is given to the loop once it is being ended: nobody would carry it out.
        self._giving = threading.Lock()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="jo-api", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def result(self, work: Coroutine[Any, Any, R], timeout_s: float | None = None) -> R:
        """Run ``work`` there and wait for its result. An interrupt ends the work, too.

        Raises ``RuntimeError`` if the client is closed before or meanwhile.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("A callback can't make calls itself; let it note what it is told")
        with self._giving:
            if self._closing:
                work.close()
                raise ClientClosed
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout_s)
        except CancelledError as error:
            raise ClientClosed from error
        except BaseException:
            future.cancel()
            raise

    def each(self, items: AsyncGenerator[R]) -> Iterator[R]:
        """Yield the items; each is asked for when it is wanted."""

        async def following() -> tuple[R] | None:
            try:
                return (await anext(items),)
            except StopAsyncIteration:
                return None

        try:
            while (item := self.result(following())) is not None:
                yield item[0]
        finally:
            with contextlib.suppress(ClientClosed):  # with the loop its generators have ended
                self.result(_closed(items))

    def close(self) -> None:
        """End the calls, the connections and the thread."""
        with self._giving:
            self._closing = True
            ending = asyncio.run_coroutine_threadsafe(self._end_calls(), self._loop)
        ending.result(CLOSE_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_TIMEOUT_S)

    async def _end_calls(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.get_running_loop().shutdown_asyncgens()
        await self.client.close()


async def _closed(items: AsyncGenerator[object]) -> None:
    await items.aclose()
