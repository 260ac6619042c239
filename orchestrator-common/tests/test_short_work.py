"""Short work in the event loop, which moves to threads while it is slow."""

import threading

import pytest

from job_orchestrator.common.runtime.short_work import ShortWork


class Machine:
    """A clock, and work that takes as long as it is set to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.takes_s = 0.001

    def clock(self) -> float:
        return self.now

    def work(self) -> bool:
        """Return whether the work runs in the thread of the event loop."""
        self.now += self.takes_s
        return threading.current_thread() is threading.main_thread()

    def fail(self) -> None:
        self.work()
        raise OSError("no space")


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def short(machine: Machine) -> ShortWork:
    return ShortWork(slow_s=0.05, recovery_s=10.0, clock=machine.clock)


async def test_fast_work_runs_in_the_event_loop(machine: Machine, short: ShortWork) -> None:
    assert [await short.run(machine.work) for _ in range(3)] == [True] * 3


@pytest.mark.parametrize("fails", [False, True])
async def test_slow_work_moves_what_follows_to_threads_for_some_time(
    machine: Machine, short: ShortWork, fails: bool
) -> None:
    machine.takes_s = 1.0
    if fails:
        with pytest.raises(OSError, match="no space"):
            await short.run(machine.fail)
    else:
        assert await short.run(machine.work)
    machine.takes_s = 0.001
    assert not await short.run(machine.work)
    machine.now += 10.0
    assert await short.run(machine.work)


async def test_slow_work_in_a_thread_does_not_extend_the_time(
    machine: Machine, short: ShortWork
) -> None:
    machine.takes_s = 1.0
    await short.run(machine.work)
    machine.takes_s = 4.0
    assert [await short.run(machine.work) for _ in range(3)] == [False] * 3
    assert await short.run(machine.work)
