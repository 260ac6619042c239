"""Threads of the client library: blocking work of asyncio programs, and a loop for other programs.

The client library does not use the thread pool of the services (``common.runtime.threads``), so
that it depends on nothing but the wire format.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from functools import partial
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

CLOSE_TIMEOUT_S = 10.0


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run ``function`` in a thread and return its result.

    A thread can't be cancelled: a cancellation of the caller takes effect when ``function`` has
    returned, so that clean-up never runs while ``function`` still writes.
    """
    # A future and not a task: code that cancels all tasks of the loop must not end this wait.
    running = asyncio.get_running_loop().run_in_executor(None, partial(function, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise


class ClientClosed(RuntimeError):
    """Another thread closed the client during a call."""

    def __init__(self) -> None:
        super().__init__("The client was closed during the call")


class Closable(Protocol):
    """Object whose connections belong to one event loop, and are closed there."""

    async def close(self) -> None:
        """Close all connections."""


C = TypeVar("C", bound=Closable)


class LoopThread(Generic[C]):
    """A background thread whose event loop carries out the calls of ``client``.

    One loop serves all threads of the program for as long as the client is open: with one loop per
    call each call would open its own connections, and nothing could be streamed.
    """

    def __init__(self, client: C) -> None:
        self.client = client
        self._loop = asyncio.new_event_loop()
        # Guards _closing: work that was scheduled after the end of the loop would never run.
        self._scheduling = threading.Lock()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="jo-api", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def result(self, work: Coroutine[Any, Any, R]) -> R:
        """Run ``work`` in the loop and return its result. An interrupt cancels the work.

        Raises ``ClientClosed`` if the client is closed, before or during the call, and
        ``RuntimeError`` when called from a callback, which would wait for itself.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError(
                "A callback can't make calls of its client; store the values and make the call"
                " in another thread"
            )
        with self._scheduling:
            if self._closing:
                work.close()
                raise ClientClosed
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError as error:
            raise ClientClosed from error
        except BaseException:
            future.cancel()
            raise

    def each(self, items: AsyncGenerator[R]) -> Iterator[R]:
        """Yield the items of an asynchronous generator, which advances only on demand."""

        async def following() -> tuple[R] | None:
            try:
                return (await anext(items),)
            except StopAsyncIteration:
                return None

        try:
            while (item := self.result(following())) is not None:
                yield item[0]
        finally:
            # The end of the loop has closed its generators.
            with contextlib.suppress(ClientClosed):
                self.result(_close_generator(items))

    def close(self) -> None:
        """Cancel running calls, close the connections and end the thread."""
        with self._scheduling:
            self._closing = True
            ending = asyncio.run_coroutine_threadsafe(self._cancel_calls(), self._loop)
        ending.result(CLOSE_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_TIMEOUT_S)

    async def _cancel_calls(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.get_running_loop().shutdown_asyncgens()
        await self.client.close()


async def _close_generator(items: AsyncGenerator[object]) -> None:
    await items.aclose()
