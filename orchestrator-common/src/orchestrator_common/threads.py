"""Work that a cancellation must not leave half done."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


async def to_end(work: Coroutine[Any, Any, R]) -> R:
    """Await ``work``; when cancelled meanwhile, let it end first and only then be cancelled."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run ``function`` in a thread and return its result.

    A thread can't be cancelled. ``asyncio.to_thread`` alone would return at once on cancellation
    while the function goes on writing to a folder that the caller's clean-up is just removing; here
    the cancellation takes effect when the function has returned.
    """
    return await to_end(asyncio.to_thread(function, *args, **kwargs))
