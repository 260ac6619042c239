"""Pool of the users that scripts run as (RUN_AS)."""

import errno
import os
import threading
from collections.abc import Sequence

from job_orchestrator.client.model import ScriptUser
from job_orchestrator.common.errors import StartupError


class UserPool:
    """Leases users to payloads. A single user is shared; of several, each has one payload."""

    def __init__(self, users: Sequence[ScriptUser]) -> None:
        self._shared = users[0] if len(users) == 1 else None
        self._free = list(users)
        self._uids = frozenset(user.uid for user in users)
        self._lock = threading.Lock()

    @property
    def exclusive_uids(self) -> frozenset[int]:
        """Ids of users that run nothing but payloads of this client."""
        return frozenset() if self._shared is not None else self._uids

    def acquire(self) -> ScriptUser:
        """Lease a user to a payload. Raises ``OSError`` (EAGAIN) when all are in use."""
        if self._shared is not None:
            return self._shared
        with self._lock:
            if not self._free:
                raise BlockingIOError(errno.EAGAIN, "all users of RUN_AS are in use")
            return self._free.pop()

    def release(self, user: ScriptUser) -> None:
        """End the lease of a user that runs nothing any more."""
        if self._shared is None:
            with self._lock:
                self._free.append(user)


def open_users(users: Sequence[ScriptUser]) -> UserPool | None:
    """Prepare to start scripts as other users; None if there are none.

    Raises ``StartupError`` if this process cannot start programs as another user.
    """
    if not users:
        return None
    if os.geteuid() != 0:
        raise StartupError("RUN_AS is set, which needs jo-client to run as root: start it as root")
    # Otherwise jo-client could read, and pack, files for a script that the script itself, which
    # does not have root's supplementary groups, cannot read.
    os.setgroups([])
    return UserPool(users)
