"""Common to these tests."""

from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx


@pytest.fixture(autouse=True)
def no_blocked_loop() -> Iterator[BlockBuster]:
    """A test fails when our code blocks the event loop."""
    with blockbuster_ctx("job_orchestrator.common") as blockbuster:
        # The measurement of coverage notes a file that is new to it.
        acquire = blockbuster.functions["threading.Lock.acquire"]
        acquire.can_block_in("coverage/collector.py", "lock_data")
        yield blockbuster
