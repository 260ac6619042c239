"""Token buckets of users: how many jobs the rate allows."""

import sqlite3

from job_orchestrator.server.model import Rate

TOKENS = "SELECT tokens, at FROM rates WHERE user_id = ?"

SET_TOKENS = """
INSERT INTO rates (user_id, tokens, at) VALUES (:user_id, :tokens, :now)
ON CONFLICT (user_id) DO UPDATE SET tokens = excluded.tokens, at = excluded.at
"""


def tokens_of(connection: sqlite3.Connection, user_id: int, rate: Rate, now: float) -> float:
    """Return how many jobs of a user ``rate`` allows now."""
    row = connection.execute(TOKENS, (user_id,)).fetchone()
    if row is None:
        return float(rate.burst)
    tokens, at = row
    return rate.tokens_at(tokens, now - at)


def take_token(
    connection: sqlite3.Connection, user_id: int, rate: Rate, now: float, jobs: int = 1
) -> None:
    """Count jobs of a user."""
    tokens = tokens_of(connection, user_id, rate, now) - jobs
    connection.execute(SET_TOKENS, {"user_id": user_id, "tokens": tokens, "now": now})
