"""Work that a cancellation must not leave half done."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


async def to_end(work: Coroutine[Any, Any, R]) -> R:
    """Await ``work``; when cancelled meanwhile, let it end first and only then be cancelled."""
    return await _result(asyncio.ensure_future(work))


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run ``function`` in a thread and return its result.

    A thread can't be cancelled. ``asyncio.to_thread`` would return at once on cancellation while
    the function goes on writing to a folder that the caller's clean-up is just removing; here the
    cancellation takes effect when the function has returned.

    Each call costs more than most of what is done in it (a hop costs about 0.1 ms, and more when
    the interpreter is busy): what belongs together goes into one function.
    """
    loop = asyncio.get_running_loop()
    return await _result(loop.run_in_executor(None, partial(function, *args, **kwargs)))


async def _result(work: "asyncio.Future[R]") -> R:
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        raise
