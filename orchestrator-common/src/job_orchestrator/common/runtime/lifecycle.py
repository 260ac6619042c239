"""Start and stop of everything that runs in the background."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from job_orchestrator.common.runtime.loops import Loop


async def _nothing() -> None:
    """Do nothing: the default step of a component that needs none."""


@dataclass(frozen=True)
class Component:
    """A part of a service that works in the background.

    ``prepare`` runs before the loops start. ``close`` runs when the loops of all components have
    stopped, and ends the remaining tasks. At the stop a running pass may go on for ``grace_s``.
    """

    loops: Sequence[Loop] = field(default=())
    prepare: Callable[[], Awaitable[None]] = _nothing
    close: Callable[[], Awaitable[None]] = _nothing
    grace_s: float = 5.0


class Lifecycle:
    """Starts and stops components in the order in which they are listed.

    At the start, first all components are prepared, then all loops started. At the stop, first all
    loops are stopped (at the same time), then all components closed. So a loop always finds every
    other component ready.
    """

    def __init__(self, components: Sequence[Component]) -> None:
        self._components = components

    @property
    def loops(self) -> list[Loop]:
        """The loops of all components, for the health report."""
        return [loop for component in self._components for loop in component.loops]

    async def start(self) -> None:
        """Prepare all components, then start their loops."""
        for component in self._components:
            await component.prepare()
        for loop in self.loops:
            loop.start()

    async def stop(self) -> None:
        """Stop all loops and tasks. Unfinished work is resumed at the next start."""
        await asyncio.gather(
            *(
                loop.stop(component.grace_s)
                for component in self._components
                for loop in component.loops
            )
        )
        for component in self._components:
            await component.close()
