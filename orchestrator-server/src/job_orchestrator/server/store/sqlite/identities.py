"""Users of trusted issuers in the database."""

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from job_orchestrator.server.store.identities import FIRST_USER_ID, Identified
from job_orchestrator.server.store.sqlite.connection import Connection
from job_orchestrator.server.store.sqlite.writer import Writer

COLUMNS = "user_id, issuer, subject, name, groups"
ONE = f"SELECT {COLUMNS} FROM identities WHERE issuer = ? AND subject = ?"  # noqa: S608
ALL = f"SELECT {COLUMNS} FROM identities ORDER BY user_id"  # noqa: S608
IDENTIFY = f"""
INSERT INTO identities (user_id, issuer, subject, name, groups, since)
VALUES ((SELECT coalesce(max(user_id) + 1, {FIRST_USER_ID}) FROM identities),
    :issuer, :subject, :name, :groups, :now)
ON CONFLICT (issuer, subject) DO UPDATE SET name = :name, groups = :groups
RETURNING {COLUMNS}
"""  # noqa: S608


@dataclass(frozen=True)
class SqliteIdentities:
    """Implementation of ``IdentityStore``. ``now`` returns seconds since the epoch."""

    writer: Writer
    reader: Connection
    now: Callable[[], float]

    async def identify(
        self, issuer: str, subject: str, name: str, groups: Sequence[str]
    ) -> Identified:
        """See ``IdentityStore.identify``. Writes only what is new."""
        rows = await self.reader.rows(ONE, (issuer, subject))
        if rows:
            known = _identified(rows[0])
            if (known.name, known.groups) == (name, tuple(groups)):
                return known
        values = {
            "issuer": issuer,
            "subject": subject,
            "name": name,
            "groups": json.dumps(list(groups)),
            "now": self.now(),
        }

        def work(connection: sqlite3.Connection) -> Any:
            return connection.execute(IDENTIFY, values).fetchone()

        return _identified(await self.writer.run(work, durable=True))

    async def all(self) -> Sequence[Identified]:
        """See ``IdentityStore.all``."""
        return [_identified(row) for row in await self.reader.rows(ALL)]


def _identified(row: Sequence[Any]) -> Identified:
    user_id, issuer, subject, name, groups = row
    return Identified(user_id, issuer, subject, name, tuple(json.loads(groups)))
