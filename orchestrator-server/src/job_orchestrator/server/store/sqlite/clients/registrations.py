"""Implementation of ``Registrations`` on SQLite."""

import sqlite3
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from job_orchestrator.server.model import Registration
from job_orchestrator.server.store.sqlite.connection import Connection
from job_orchestrator.server.store.sqlite.writer import Writer

PUT = """
INSERT INTO registrations (name, identity, services, seen_at) VALUES (?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE
SET identity = excluded.identity, services = excluded.services, seen_at = excluded.seen_at
"""
USES = "SELECT identity FROM token_uses WHERE token = ?"
ADD_USE = "INSERT INTO token_uses (token, identity) VALUES (?, ?)"
DRAIN = "INSERT OR IGNORE INTO drained_clients (name) VALUES (?)"
RESUME = "DELETE FROM drained_clients WHERE name = ?"


@dataclass(frozen=True)
class SqliteRegistrations:
    """See ``Registrations``. ``now`` returns seconds since the epoch."""

    writer: Writer
    reader: Connection
    now: Callable[[], float]

    async def all(self) -> Sequence[Registration]:
        """See ``Registrations.all``."""
        rows = await self.reader.rows("SELECT name, identity, services, seen_at FROM registrations")
        return [
            Registration(str(name), str(identity), tuple(str(services).split(",")), float(seen_at))
            for name, identity, services, seen_at in rows
        ]

    async def put(self, client: Registration) -> None:
        """See ``Registrations.put``."""
        values = (client.name, client.identity, ",".join(client.services), client.seen_at)
        await self._write(PUT, values)

    async def seen(self, name: str) -> None:
        """See ``Registrations.seen``."""
        await self._write("UPDATE registrations SET seen_at = ? WHERE name = ?", (self.now(), name))

    async def remove(self, name: str) -> None:
        """See ``Registrations.remove``."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM registrations WHERE name = ?", (name,))
            connection.execute(RESUME, (name,))

        await self.writer.run(work, durable=True)

    async def use_token(self, token: str, identity: str, uses: int) -> bool:
        """See ``Registrations.use_token``."""

        def work(connection: sqlite3.Connection) -> bool:
            users = {str(user) for (user,) in connection.execute(USES, (token,))}
            if identity in users:
                return True
            if len(users) >= uses:
                return False
            connection.execute(ADD_USE, (token, identity))
            return True

        return await self.writer.run(work, durable=True)

    async def keep_tokens(self, tokens: Collection[str]) -> None:
        """See ``Registrations.keep_tokens``."""

        def work(connection: sqlite3.Connection) -> None:
            used = {str(token) for (token,) in connection.execute("SELECT token FROM token_uses")}
            connection.executemany(
                "DELETE FROM token_uses WHERE token = ?", [(old,) for old in used - set(tokens)]
            )

        await self.writer.run(work)

    async def drained(self) -> Collection[str]:
        """See ``Registrations.drained``."""
        rows = await self.reader.rows("SELECT name FROM drained_clients")
        return {str(name) for (name,) in rows}

    async def set_drained(self, name: str, *, drained: bool) -> None:
        """See ``Registrations.set_drained``."""
        await self._write(DRAIN if drained else RESUME, (name,))

    async def _write(self, statement: str, values: Sequence[object]) -> None:
        await self.writer.execute(statement, values, durable=True)
