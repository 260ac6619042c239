"""``.orchestrator/result.json``: how a payload ended, and what of it is not in its results."""

import msgspec

from job_orchestrator.client.executors.base import Outcome

MAX_LISTED = 1000


class Skipped(msgspec.Struct, frozen=True):
    """A file that is not in the ZIP, or not whole, and why."""

    path: str
    reason: str


class ResultRecord(msgspec.Struct, frozen=True):
    """``.orchestrator/result.json``. Times are seconds since the epoch; None: not ended yet.

    ``skipped`` holds the first ``MAX_LISTED`` of ``skipped_count`` files.
    """

    exit_code: int | None
    signal: int | None
    started_at: float | None
    ended_at: float | None
    skipped_count: int
    skipped: list[Skipped]


class LeftOut:
    """What could not go into the results, while they are packed."""

    def __init__(self) -> None:
        self.listed: list[Skipped] = []
        self.count = 0

    def note(self, name: str, reason: str) -> None:
        """Note that something is left out, or not there as a whole."""
        self.count += 1
        if len(self.listed) < MAX_LISTED:
            shown = name.encode("utf-8", "backslashreplace").decode()
            self.listed.append(Skipped(shown, reason))


def result_record(outcome: Outcome | None, left_out: LeftOut) -> bytes:
    """The JSON; ``outcome`` None: the payload has not ended."""
    record = ResultRecord(
        exit_code=outcome.exit_code if outcome else None,
        signal=outcome.signal if outcome else None,
        started_at=outcome.started_at if outcome else None,
        ended_at=outcome.ended_at if outcome else None,
        skipped_count=left_out.count,
        skipped=left_out.listed,
    )
    return msgspec.json.format(msgspec.json.encode(record), indent=2)
