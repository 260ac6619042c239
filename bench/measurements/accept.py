"""Rate of accepted small uploads. Each is durable before its response 201."""

import statistics
import time
from contextlib import AsyncExitStack
from pathlib import Path

from bench.counting.commits import commits
from bench.floors.disk import fsyncs_per_second
from bench.http import Connection, Form, submit_all
from bench.outcome import Outcome, Row
from bench.services import pair
from bench.sizes import Size

SENDERS = 8
PER_SECOND = 1500.0
MORE_THAN_ONE = 1.01
BUSY = "exec sleep 600\n"


async def measure(folder: Path, size: Size) -> Outcome:
    """Submit ``uploads`` jobs a round over eight connections.

    The only slot of the client is occupied, so the server does nothing else. The floor is measured
    before each round.
    """
    form = Form.of({"user_id": "1", "service": "bench"}, {"run.sh": b"exit 0\n"})
    rates: list[float] = []
    floors: list[float] = []
    shares: list[float] = []
    async with AsyncExitStack() as stack:
        services = await stack.enter_async_context(pair(folder, slots=1))
        url = services.server.url
        portals = [await stack.enter_async_context(Connection(url)) for _ in range(SENDERS)]
        busy = Form.of({"user_id": "1", "service": "bench"}, {"run.sh": BUSY.encode()})
        await portals[0].until_running(await portals[0].submit(busy))
        database = services.server.folder / "db.sqlite"
        for _ in range(size.rounds):
            floors.append(fsyncs_per_second(folder, size.fsyncs, SENDERS))
            before = commits(database)
            begun = time.perf_counter()
            await submit_all(portals, [form], size.uploads)
            rates.append(size.uploads / (time.perf_counter() - begun))
            shares.append(size.uploads / (commits(database) - before))
    rate, floor = statistics.median(rates), statistics.median(floors)
    return Outcome(
        [
            Row(
                f"small uploads accepted, {SENDERS} at a time",
                rate,
                "uploads/s",
                PER_SECOND,
                f"at least {PER_SECOND:g}/s",
                at_most=False,
                floor=floor,
                floor_name=f"fsyncs per second, {SENDERS} at a time",
            ),
            Row(
                f"small uploads that share a commit, {SENDERS} at a time",
                statistics.median(shares),
                "uploads",
                MORE_THAN_ONE,
                "more than one",
                at_most=False,
            ),
        ],
        {"uploads_per_second": rates, "fsyncs_per_second": floors, "uploads_per_commit": shares},
    )
