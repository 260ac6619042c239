"""Identity of a database of jobs, in the keys of its attempts."""

import secrets
from dataclasses import dataclass


@dataclass(frozen=True)
class Installation:
    """Identity of a database of jobs, which distinguishes its keys from those of other servers.

    A client may serve several servers. ``id`` is random, and starts the nonce of every key. A
    restored backup has the ``id`` of the database that was backed up.
    """

    id: str

    def new_nonce(self) -> str:
        """Return the nonce of a new attempt."""
        return f"{self.id}-{secrets.token_hex(8)}"

    def made(self, key: str) -> bool:
        """Return whether ``key`` names an attempt of this installation.

        False for a key without a nonce, as attempts had before there were nonces.
        """
        return key.rpartition(".")[2].startswith(f"{self.id}-")
