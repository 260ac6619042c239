"""The users that scripts run as."""

import errno
import os
import threading
from collections.abc import Sequence

from job_orchestrator.client.model import ScriptUser
from job_orchestrator.common.errors import StartupError


class ScriptUsers:
    """Lends them to payloads: one to all, or each of several to one at a time."""

    def __init__(self, users: Sequence[ScriptUser]) -> None:
        self._shared = users[0] if len(users) == 1 else None
        self._free = list(users)
        self._ids = frozenset(user.uid for user in users)
        self._lock = threading.Lock()

    @property
    def own_ids(self) -> frozenset[int]:
        """Users as whom nothing runs but payloads of this client."""
        return frozenset() if self._shared is not None else self._ids

    def take(self) -> ScriptUser:
        """One for a payload. Raises ``OSError`` (EAGAIN) when all are in use."""
        if self._shared is not None:
            return self._shared
        with self._lock:
            if not self._free:
                raise BlockingIOError(errno.EAGAIN, "all users of RUN_AS are in use")
            return self._free.pop()

    def give_back(self, user: ScriptUser) -> None:
        """Nothing runs as this user any more."""
        if self._shared is None:
            with self._lock:
                self._free.append(user)


def open_users(users: Sequence[ScriptUser]) -> ScriptUsers | None:
    """Prepare for scripts of other users; None: there are none.

    Raises ``StartupError`` if this process can't start anything as another user.
    """
    if not users:
        return None
    if os.geteuid() != 0:
        raise StartupError("RUN_AS is set, for which jo-client must be started as root")
    # What root's own groups may read, the client must not pack for a script that may not.
    os.setgroups([])
    return ScriptUsers(users)
