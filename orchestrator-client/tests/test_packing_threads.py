"""Threads that pack: none is held for ever, and the health check says when nothing moves."""

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from job_orchestrator.client.errors import PackingHangs
from job_orchestrator.client.results.threads import PackingThreads, Progress

STALL_S = 0.2


@pytest.fixture
def answer() -> Iterator[threading.Event]:
    """Event on which hanging work waits, as on a file system that does not answer."""
    event = threading.Event()
    yield event
    event.set()


def hanging(answer: threading.Event) -> Callable[[Progress], None]:
    def work(progress: Progress) -> None:
        answer.wait()
        progress.note()
        raise AssertionError("work that was given up must not go on")

    return work


async def test_thread_that_hangs_is_given_up_and_replaced(answer: threading.Event) -> None:
    threads = PackingThreads(1, STALL_S)
    for _ in range(3):
        with pytest.raises(PackingHangs, match="did not answer"):
            await threads.run(hanging(answer))
    assert await threads.run(lambda _: "moves") == "moves"
    assert threads.problem == ""


async def test_threads_that_all_hang_are_a_problem_until_one_comes_back(
    answer: threading.Event,
) -> None:
    threads = PackingThreads(2, STALL_S, max_replaced=1)
    for _ in range(3):
        assert threads.problem == ""
        with pytest.raises(PackingHangs):
            await threads.run(hanging(answer))
    assert threads.problem.startswith("No results can be packed")
    answer.set()
    assert await threads.run(lambda _: "moves") == "moves"
    assert threads.problem == ""


async def test_work_that_makes_progress_is_never_given_up() -> None:
    pause = threading.Event()

    def work(progress: Progress) -> str:
        for _ in range(10):
            progress.note()
            pause.wait(STALL_S / 4)
        return "slow"

    assert await PackingThreads(1, STALL_S).run(work) == "slow"


async def test_cancelled_work_ends_at_its_next_step() -> None:
    begun, over = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def work(progress: Progress) -> None:
        loop.call_soon_threadsafe(begun.set)
        try:
            while True:
                progress.note()
        finally:
            over.set()

    packing = asyncio.create_task(PackingThreads(1, 60.0).run(work))
    await begun.wait()
    packing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await packing
    assert over.is_set()
