"""Limits of one user, which are checked in the transaction that adds jobs."""

import math
from dataclasses import dataclass

from job_orchestrator.common.errors import DomainError
from job_orchestrator.server.errors import (
    InvalidSubmission,
    RateExceeded,
    TooManyQueued,
    TooMuchStored,
)
from job_orchestrator.server.model import Rate


@dataclass(frozen=True)
class UserLimits:
    """Limits of one user over all services; 0 means without a limit.

    ``max_queued`` counts queued jobs, ``max_stored`` the bytes of inputs and results. Submissions
    beyond ``rate`` are refused; None means that none are.
    """

    max_queued: int = 0
    max_stored: int = 0
    rate: Rate | None = None

    @property
    def any(self) -> bool:
        """True if there is a limit."""
        return bool(self.max_queued or self.max_stored or self.rate)

    def problem(
        self, queued: int, stored: int, tokens: float, user_id: int, input_bytes: int, jobs: int = 1
    ) -> DomainError | None:
        """Return the error for a user with these counts who adds jobs; None if it is allowed.

        ``tokens`` are those of ``rate``. ``jobs`` have one set of files.
        """
        more = f"; these are {jobs}" if jobs > 1 else ""
        burst = self.rate.burst if self.rate is not None else 0
        most = min(filter(None, (burst, self.max_queued)), default=jobs)
        if jobs > max(most, 1):
            return InvalidSubmission(
                f"An array of user {user_id} may have at most {most} tasks; this one has {jobs}"
            )
        if self.rate is not None and tokens < jobs:
            return RateExceeded(
                f"User {user_id} may send {self.rate}{more}; try again later",
                math.ceil(self.rate.wait_s(tokens, jobs)),
            )
        if self.max_queued and queued + jobs > self.max_queued:
            return TooManyQueued(
                f"User {user_id} has {queued} queued jobs, and may have {self.max_queued}{more};"
                " wait until some have run"
            )
        if self.max_stored and stored + input_bytes > self.max_stored:
            return TooMuchStored(
                f"The files of user {user_id} take {stored} bytes, and may take {self.max_stored};"
                f" these have {input_bytes}. Results are removed some time after their job's end"
            )
        return None
