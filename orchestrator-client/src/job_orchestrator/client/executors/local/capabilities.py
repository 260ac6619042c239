"""Capabilities of root's scripts: those that programs of users need (see capabilities(7)).

The client keeps its own. It removes the others from its bounding set, which limits what a program
has that is started as root, whichever way starts it. In a user namespace of its own, such as that
of the sandbox, a program has all capabilities over what it creates there.
"""

import ctypes
import os
from enum import IntEnum
from pathlib import Path

PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
LAST_CAPABILITY = Path("/proc/sys/kernel/cap_last_cap")


class Kept(IntEnum):
    """Capabilities of root that scripts keep; the numbers are those of linux/capability.h.

    They are about files, users and processes of the machine. None of them can mount, make files
    immutable, load modules, open devices, or read the memory of processes that have more.
    """

    CHOWN = 0
    DAC_OVERRIDE = 1
    FOWNER = 3
    FSETID = 4
    KILL = 5
    SETGID = 6
    SETUID = 7
    NET_BIND_SERVICE = 10
    NET_RAW = 13
    SYS_CHROOT = 18


def limit_capabilities_of_scripts() -> None:
    """Remove all other capabilities from the bounding set of this process.

    Call it before threads are started: each has a set of its own. Without root there is nothing to
    remove. Raises ``OSError``.
    """
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(int(LAST_CAPABILITY.read_text()) + 1):
        if capability in set(Kept) or libc.prctl(PR_CAPBSET_READ, capability, 0, 0, 0) != 1:
            continue
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
