"""The checks of the soak find broken promises; otherwise its success would prove nothing."""

import io
import zipfile

import pytest

from faults.soak_jobs import LogLine, Outage, SoakJob, broken_promises, wrong_results

FOLDER = "/c/data/payloads/x/work"
RAN = LogLine("start", 10.0, FOLDER)
AGAIN = LogLine("start", 20.0, FOLDER)


def job(kind: str = "quick", status: str = "Completed", **fields: object) -> SoakJob:
    return SoakJob(kind, 1, job_id=1, done=True, status=status, **fields)  # type: ignore[arg-type]


def problems(soak_job: SoakJob, *lines: LogLine, outages: tuple[Outage, ...] = ()) -> list[str]:
    return broken_promises(soak_job, list(lines), list(outages), disks_failed=False)


def test_job_that_ended_as_expected_has_no_problem() -> None:
    assert problems(job(), RAN) == []


@pytest.mark.parametrize(
    ("soak_job", "lines"),
    [
        (SoakJob("quick", 1, job_id=1, status="Running"), (RAN,)),
        (job(), (RAN, AGAIN)),
        (job(), ()),
        (job("refused", "Invalid"), (RAN,)),
        (job(ended_at=9.0), (RAN,)),
        (job("failing", "Completed"), (RAN,)),
        (job("cancelled", "Killed", cancelled_at=12.0), (RAN, LogLine("alive", 14.0, FOLDER))),
        (job(status="Failed", message="The disk is full"), (RAN,)),
    ],
    ids=[
        "not ended",
        "twice",
        "never ran",
        "ran",
        "after its end",
        "wrong status",
        "survived",
        "no disk was full",
    ],
)
def test_broken_promise_is_found(soak_job: SoakJob, lines: tuple[LogLine, ...]) -> None:
    assert len(problems(soak_job, *lines)) == 1


def test_second_run_is_explained_by_the_absence_of_its_client_in_between_only() -> None:
    assert problems(job(), RAN, AGAIN, outages=(Outage("/c/data", 15.0, 16.0),)) == []
    for elsewhere in (
        Outage("/other", 15.0, 16.0),
        Outage("/c/data", 1.0, 2.0),
        Outage("/c/data", 30.0, 31.0),
    ):
        assert problems(job(), RAN, AGAIN, outages=(elsewhere,))


def test_results_of_another_job_are_found() -> None:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("copies/0", "of another job")
    assert wrong_results(job(), body.getvalue())
