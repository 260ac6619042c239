"""The soak detects a broken promise; otherwise its success would prove nothing."""

import io
import zipfile

import pytest

from faults.soak_jobs import Absence, Line, SoakJob, broken_promises, wrong_results

FOLDER = "/c/data/payloads/x/work"
RAN = Line("start", 10.0, FOLDER)
AGAIN = Line("start", 20.0, FOLDER)


def job(kind: str = "quick", status: str = "Completed", **fields: object) -> SoakJob:
    return SoakJob(kind, 1, job_id=1, done=True, status=status, **fields)  # type: ignore[arg-type]


def found(soak_job: SoakJob, *lines: Line, absences: tuple[Absence, ...] = ()) -> list[str]:
    return broken_promises(soak_job, list(lines), list(absences), disks_failed=False)


def test_job_that_ended_well_is_no_problem() -> None:
    assert found(job(), RAN) == []


@pytest.mark.parametrize(
    ("soak_job", "lines"),
    [
        (SoakJob("quick", 1, job_id=1, status="Running"), (RAN,)),
        (job(), (RAN, AGAIN)),
        (job(), ()),
        (job("refused", "Invalid"), (RAN,)),
        (job("failing", "Completed"), (RAN,)),
        (job("cancelled", "Killed", cancelled_at=12.0), (RAN, Line("alive", 14.0, FOLDER))),
        (job(status="Failed", message="The disk is full"), (RAN,)),
    ],
    ids=["not ended", "twice", "never ran", "ran", "wrong end", "lived on", "no disk was full"],
)
def test_broken_promise_is_found(soak_job: SoakJob, lines: tuple[Line, ...]) -> None:
    assert len(found(soak_job, *lines)) == 1


def test_second_run_is_explained_by_the_absence_of_its_client_in_between_only() -> None:
    assert found(job(), RAN, AGAIN, absences=(Absence("/c/data", 15.0, 16.0),)) == []
    for elsewhere in (
        Absence("/other", 15.0, 16.0),
        Absence("/c/data", 1.0, 2.0),
        Absence("/c/data", 30.0, 31.0),
    ):
        assert found(job(), RAN, AGAIN, absences=(elsewhere,))


def test_results_of_another_job_are_found() -> None:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("copies/0", "somebody else's")
    assert wrong_results(job(), body.getvalue())
