"""``.orchestrator/result.json``: how a payload ended, and which files its results lack."""

import msgspec

from job_orchestrator.client.executors.base import Outcome

MAX_LISTED = 1000


class SkippedFile(msgspec.Struct, frozen=True):
    """A file that is not in the ZIP, or only in part, and the reason."""

    path: str
    reason: str


class ResultRecord(msgspec.Struct, frozen=True):
    """The content of the file. Times are seconds since the epoch; None: not ended yet.

    ``skipped`` holds the first ``MAX_LISTED`` of ``skipped_count`` files. ``left_out_count`` is the
    number of files that the selection of the job leaves out.
    """

    exit_code: int | None
    signal: int | None
    started_at: float | None
    ended_at: float | None
    skipped_count: int
    skipped: list[SkippedFile]
    left_out_count: int


class SkippedFiles:
    """The files that could not be packed, collected during packing."""

    def __init__(self) -> None:
        self.listed: list[SkippedFile] = []
        self.count = 0

    def add(self, name: str, reason: str) -> None:
        """Record that a file is left out, or is incomplete."""
        self.count += 1
        if len(self.listed) < MAX_LISTED:
            printable = name.encode("utf-8", "backslashreplace").decode()
            self.listed.append(SkippedFile(printable, reason))


def encode_manifest(outcome: Outcome | None, skipped: SkippedFiles, left_out_count: int) -> bytes:
    """Encode the JSON; ``outcome`` is None for a payload that has not ended."""
    record = ResultRecord(
        exit_code=outcome.exit_code if outcome else None,
        signal=outcome.signal if outcome else None,
        started_at=outcome.started_at if outcome else None,
        ended_at=outcome.ended_at if outcome else None,
        skipped_count=skipped.count,
        skipped=skipped.listed,
        left_out_count=left_out_count,
    )
    return msgspec.json.format(msgspec.json.encode(record), indent=2)
