"""Fixtures of these tests."""

from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx


@pytest.fixture(autouse=True)
def no_blocked_loop() -> Iterator[BlockBuster]:
    """The check that makes a test fail when our code blocks the event loop."""
    with blockbuster_ctx("job_orchestrator.common") as blockbuster:
        # The measurement of coverage locks its data at the first use of a file.
        acquire = blockbuster.functions["threading.Lock.acquire"]
        acquire.can_block_in("coverage/collector.py", "lock_data")
        yield blockbuster
