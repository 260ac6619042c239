"""Contract of the records of clients: which have registered, and which are drained."""

from collections.abc import Collection, Sequence
from typing import Protocol

from job_orchestrator.server.model import Registration


class Registrations(Protocol):
    """Records of clients, durable on return."""

    async def all(self) -> Sequence[Registration]:
        """Return the clients that have registered themselves."""

    async def put(self, client: Registration) -> None:
        """Add a client, or replace the record of its name."""

    async def seen(self, name: str) -> None:
        """Record that a client was connected until now."""

    async def remove(self, name: str) -> None:
        """Remove a client, and that it is drained."""

    async def use_token(self, token: str, identity: str, uses: int) -> bool:
        """Record that a client uses a token that so many clients may use.

        Returns False if others have used it up. ``token`` is its hash.
        """

    async def keep_tokens(self, tokens: Collection[str]) -> None:
        """Remove the records of the use of all other tokens, which are not valid any more."""

    async def drained(self) -> Collection[str]:
        """Return the names of the clients that get no jobs."""

    async def set_drained(self, name: str, *, drained: bool) -> None:
        """Record whether a client gets no jobs."""
