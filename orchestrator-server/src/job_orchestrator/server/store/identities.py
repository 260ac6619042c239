"""Contract of the store of identities: users of trusted issuers, and their numbers here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

FIRST_USER_ID = 1_000_000_000
"""Users of issuers are numbered from here on, far from the numbers that portals choose."""


@dataclass(frozen=True)
class Identified:
    """A user of an issuer. ``name`` and ``groups`` are those of the user's last new token."""

    user_id: int
    issuer: str
    subject: str
    name: str
    groups: tuple[str, ...]


class IdentityStore(Protocol):
    """Users of issuers. A user has the same number for ever."""

    async def identify(
        self, issuer: str, subject: str, name: str, groups: Sequence[str]
    ) -> Identified:
        """Return a user, added under the next free number if it is not known. Durable."""

    async def all(self) -> Sequence[Identified]:
        """Return all users, by number."""
