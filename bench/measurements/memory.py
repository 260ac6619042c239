"""How much memory each service takes."""

import asyncio
from pathlib import Path

from bench.outcome import Outcome, Row
from bench.services import Pair, Service, pair
from bench.sizes import Size

IDLE_MIB = 60.0


async def measure(folder: Path, size: Size) -> Outcome:
    """Resident memory of both services at rest."""
    async with pair(folder) as services:
        await asyncio.sleep(size.settle_s)
        idle = {name: resident_mib(service) for name, service in named(services).items()}
    rows = [
        Row(
            f"memory of {name}, idle",
            mib,
            "MiB",
            IDLE_MIB,
            f"at most {IDLE_MIB:g} MiB",
            at_most=True,
        )
        for name, mib in idle.items()
    ]
    return Outcome(rows, {"idle_mib": idle})


def named(services: Pair) -> dict[str, Service]:
    """Both, by command."""
    return {"jo-server": services.server, "jo-client": services.client}


def resident_mib(service: Service) -> float:
    """Resident memory now: what ``ps`` shows, shared libraries included."""
    return float(service.process.memory_info().rss) / 2**20
