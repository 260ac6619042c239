"""Blocking work in a thread, without leaving it behind."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run ``function`` in a thread and return its result.

    A thread can't be cancelled. ``asyncio.to_thread`` alone would return at once on cancellation
    while the function goes on writing to a folder that the caller's clean-up is just removing; here
    the cancellation takes effect when the function has returned.
    """
    work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        raise
