"""Exact costs of a job. Every change of a count needs a decision."""

from pathlib import Path

import pytest

from bench.counting import syscalls
from bench.measurements import counts
from bench.sizes import SMOKE


@pytest.mark.skipif(not syscalls.available(), reason="strace is not installed")
async def test_trivial_job_costs_two_commits_and_no_request_but_its_frames(
    tmp_path: Path,
) -> None:
    details = (await counts.measure(tmp_path, SMOKE)).details
    # Assignment, events, results and acknowledgement are frames of the link.
    assert details["requests_per_job"] == {}
    # Upload and claim share a commit. So do acceptance, start and end of the script, unless the
    # machine is too busy.
    assert min(details["commits_of_each_job"]) == 2
    statements = details["statements_per_job"]
    assert statements["jo-server"]["COMMIT"] >= 2
    assert statements["jo-client"]["UPDATE"] >= 2
    assert details["flushes_per_job"]["jo-client"] == {}
    # The upload with its files before its 201, with the claim before the job is sent; the end with
    # its results before it is answered or acknowledged: a power cut takes back none of what others
    # act upon.
    assert details["flushes_per_job"]["jo-server"] == {"db.sqlite-wal": 2}
