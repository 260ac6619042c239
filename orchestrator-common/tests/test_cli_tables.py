"""Tables of ``jo`` in terminals."""

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from job_orchestrator.cli.tables import job_table
from job_orchestrator.sdk import Job, JobStatus


@pytest.mark.parametrize(("columns", "tag"), [(80, ""), (110, ""), (110, "campaign-of-spring")])
def test_list_of_jobs_in_a_narrow_terminal_keeps_its_first_columns(columns: int, tag: str) -> None:
    job = Job(
        id=123456,
        user_id=4711,
        service="example",
        status=JobStatus.COMPLETED,
        message="a message that is longer than any terminal is wide " * 5,
        name="[b]not bold[/b] and a name of some length",
        tag=tag,
        created_at=datetime(2026, 11, 26, 11, 28, 15, tzinfo=UTC),
    )
    console = Console(width=columns, file=io.StringIO())
    with console.capture() as shown:
        console.print(job_table([job]))
    header, line = shown.get().splitlines()
    assert line.split()[:4] == ["123456", "4711", "example", "Completed"]
    assert "…" in line
    assert "[b]" in line
    assert ("TAG" in header.split()) == bool(tag)
