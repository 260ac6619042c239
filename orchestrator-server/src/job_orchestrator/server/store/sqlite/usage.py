"""What a user may have queued and stored, checked in the transaction that adds to it."""

import sqlite3

from job_orchestrator.server.errors import TooManyQueued, TooMuchStored
from job_orchestrator.server.model import UserLimits

USAGE = "SELECT queued, stored_bytes FROM usage WHERE user_id = ?"


def limit_problem(
    connection: sqlite3.Connection, limits: UserLimits, user_id: int, input_bytes: int
) -> TooManyQueued | TooMuchStored | None:
    """Why a job with so many bytes can't be added now; None if it can."""
    if not limits.any:
        return None
    queued, stored = connection.execute(USAGE, (user_id,)).fetchone() or (0, 0)
    return limits.problem(queued, stored, user_id, input_bytes)
