"""Tuning of the allocator: freed buffers are reused."""

import subprocess
import sys

BUFFERS = """
import resource
from job_orchestrator.common.runtime.process_tuning import retain_freed_buffers
retain_freed_buffers()
def use():
    for _ in range(100):
        [b"x" * (1 << 20) for _ in range(6)]
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_freed_buffers_are_reused() -> None:
    # 150,000 pages are written; each would be a page fault if it came from the system.
    ran = subprocess.run(
        [sys.executable, "-c", BUFFERS], capture_output=True, text=True, check=True
    )
    assert int(ran.stdout) < 1000
