"""Order of start and stop of background components."""

import asyncio

from job_orchestrator.common.runtime.lifecycle import Component, Lifecycle
from job_orchestrator.common.runtime.loops import Loop


class Recorded:
    """Component that records what happens to it."""

    def __init__(self, name: str, happened: list[str], grace_s: float = 5.0) -> None:
        self._name = name
        self._happened = happened
        self.passed = asyncio.Event()
        loop = Loop(name, self._pass, interval_s=1000.0)
        self.component = Component([loop], self._prepare, self._close, grace_s)

    async def _prepare(self) -> None:
        self._happened.append(f"prepare {self._name}")

    async def _pass(self) -> None:
        self._happened.append(f"pass {self._name}")
        self.passed.set()

    async def _close(self) -> None:
        self._happened.append(f"close {self._name}")


async def test_components_are_prepared_before_and_closed_after_all_loops() -> None:
    happened: list[str] = []
    first, second = Recorded("1", happened), Recorded("2", happened)
    lifecycle = Lifecycle([first.component, second.component])
    await lifecycle.start()
    assert all(loop.alive for loop in lifecycle.loops)
    await first.passed.wait()
    await second.passed.wait()
    await lifecycle.stop()
    assert not any(loop.alive for loop in lifecycle.loops)
    assert happened == ["prepare 1", "prepare 2", "pass 1", "pass 2", "close 1", "close 2"]


async def test_endless_pass_of_a_component_without_grace_is_cancelled_immediately() -> None:
    started = asyncio.Event()

    async def follow_for_ever() -> None:
        started.set()
        await asyncio.Event().wait()

    loop = Loop("endless", follow_for_ever, interval_s=1.0)
    lifecycle = Lifecycle([Component([loop], grace_s=0.0)])
    await lifecycle.start()
    await started.wait()
    async with asyncio.timeout(60):
        await lifecycle.stop()
