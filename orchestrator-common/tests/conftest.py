"""Common to these tests."""

from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx


@pytest.fixture(autouse=True)
def no_blocked_loop() -> Iterator[BlockBuster]:
    """A test fails when our code blocks the event loop."""
    with blockbuster_ctx("orchestrator_common") as blockbuster:
        yield blockbuster
