"""What a user may have queued and stored, checked in the transaction that adds to it."""

import sqlite3
from dataclasses import dataclass

from job_orchestrator.server.errors import TooManyQueued, TooMuchStored

USAGE = "SELECT queued, stored_bytes FROM usage WHERE user_id = ?"


@dataclass(frozen=True)
class UserLimits:
    """Of one user, all services together; 0: none. ``max_stored`` in bytes, inputs and outputs."""

    max_queued: int = 0
    max_stored: int = 0

    @property
    def any(self) -> bool:
        """Whether there is a limit at all."""
        return bool(self.max_queued or self.max_stored)

    def problem(
        self, connection: sqlite3.Connection, user_id: int, input_bytes: int
    ) -> TooManyQueued | TooMuchStored | None:
        """Why a job with so many bytes can't be added now; None if it can."""
        if not self.any:
            return None
        queued, stored = connection.execute(USAGE, (user_id,)).fetchone() or (0, 0)
        return self.problem_with(queued, stored, user_id, input_bytes)

    def problem_with(
        self, queued: int, stored: int, user_id: int, input_bytes: int
    ) -> TooManyQueued | TooMuchStored | None:
        """The same for a user who has so many ``queued`` jobs and ``stored`` bytes."""
        if self.max_queued and queued >= self.max_queued:
            return TooManyQueued(
                f"User {user_id} has {queued} queued jobs, and may have {self.max_queued};"
                " wait until some have run"
            )
        if self.max_stored and stored + input_bytes > self.max_stored:
            return TooMuchStored(
                f"The files of user {user_id} take {stored} bytes, and may take {self.max_stored};"
                f" these have {input_bytes}. Results are removed some time after their job's end"
            )
        return None
