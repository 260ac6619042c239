"""Starts programs directly in their cgroups, with posix_spawn of the C library.

The GNU C library has an attribute of posix_spawn for this since version 2.39. Its posix_spawn is
safe in a process with threads and copies no memory: the child borrows the memory of the parent,
which waits until the child executes the program. ``os.posix_spawn`` knows neither this attribute
nor a work folder, so the functions are called through ctypes.
"""

import ctypes
import os
from collections.abc import Iterable
from ctypes import POINTER, c_char_p, c_int, c_short, c_void_p
from pathlib import Path
from typing import Any

from job_orchestrator.client.errors import CgroupsUnavailable
from job_orchestrator.client.executors.local.child import Child, Program
from job_orchestrator.common.runtime.short_work import ShortWork

# From glibc's spawn.h; the same on every architecture.
_SETSIGDEF = 0x04
_SETSIGMASK = 0x08
_SETSID = 0x80
_SETCGROUP = 0x100
_FLAGS = _SETSIGDEF | _SETSIGMASK | _SETSID | _SETCGROUP

_STRUCT_BYTES = 1024
"""Room for any of sigset_t, posix_spawnattr_t and posix_spawn_file_actions_t.

They have 128, 336 and 80 bytes on 64-bit machines, with reserved fields for later versions.
"""

_DEV_NULL = os.fsencode(os.devnull)
_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "sigemptyset": (c_void_p,),
    "sigfillset": (c_void_p,),
    "posix_spawnattr_init": (c_void_p,),
    "posix_spawnattr_setflags": (c_void_p, c_short),
    "posix_spawnattr_setsigmask": (c_void_p, c_void_p),
    "posix_spawnattr_setsigdefault": (c_void_p, c_void_p),
    "posix_spawnattr_setcgroup_np": (c_void_p, c_int),
    "posix_spawn_file_actions_init": (c_void_p,),
    "posix_spawn_file_actions_destroy": (c_void_p,),
    "posix_spawn_file_actions_addchdir_np": (c_void_p, c_char_p),
    "posix_spawn_file_actions_addopen": (c_void_p, c_int, c_char_p, c_int, c_int),
    "posix_spawn_file_actions_adddup2": (c_void_p, c_int, c_int),
    "posix_spawn": (
        *(POINTER(c_int), c_char_p, c_void_p, c_void_p, POINTER(c_char_p), POINTER(c_char_p)),
    ),
}


class NativeStart:
    """Starts programs of this process's user. ``start`` blocks until the program is executed."""

    def __init__(self) -> None:
        """Find the functions. Raises ``CgroupsUnavailable`` if the C library lacks one."""
        self._libc = ctypes.CDLL(None)
        try:
            for name, arguments in _ARGUMENTS.items():
                getattr(self._libc, name).argtypes = arguments
        except AttributeError as error:
            raise CgroupsUnavailable(
                "the C library cannot start a process in a cgroup (glibc can since version 2.39)"
            ) from error
        self._attributes = self._make_attributes()
        self._short = ShortWork()

    def start(self, program: Program, cgroup: Path) -> Child:
        """Start a program in a cgroup; see ``CgroupStarter``. ``program.user`` must be None.

        All signals have their default action in the new process, and none is blocked.
        """
        if program.user is not None:
            raise ValueError("posix_spawn cannot change the user")
        pid = c_int()
        actions = ctypes.create_string_buffer(_STRUCT_BYTES)
        descriptor = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            attributes = ctypes.create_string_buffer(self._attributes, _STRUCT_BYTES)
            self._call("posix_spawnattr_setcgroup_np", attributes, descriptor)
            self._call("posix_spawn_file_actions_init", actions)
            try:
                self._add_actions(actions, program)
                self._call(
                    "posix_spawn",
                    ctypes.byref(pid),
                    os.fsencode(program.command[0]),
                    actions,
                    attributes,
                    _strings(program.command),
                    _strings(f"{name}={value}" for name, value in program.environment.items()),
                    subject=program.command[0],
                )
            finally:
                self._call("posix_spawn_file_actions_destroy", actions)
        finally:
            os.close(descriptor)
        return Child(pid.value)

    async def start_in_loop(self, program: Program, cgroup: Path) -> Child:
        """Start a program like ``start``, in the event loop."""
        return await self._short.run(self.start, program, cgroup)

    def close(self) -> None:
        """Do nothing: there are no resources."""

    def _make_attributes(self) -> bytes:
        """Return the attributes that all programs have; they hold no pointers."""
        attributes = ctypes.create_string_buffer(_STRUCT_BYTES)
        signals = ctypes.create_string_buffer(_STRUCT_BYTES)
        self._call("posix_spawnattr_init", attributes)
        self._call("posix_spawnattr_setflags", attributes, _FLAGS)
        self._call("sigemptyset", signals)
        self._call("posix_spawnattr_setsigmask", attributes, signals)
        self._call("sigfillset", signals)
        self._call("posix_spawnattr_setsigdefault", attributes, signals)
        return attributes.raw

    def _add_actions(self, actions: ctypes.Array[ctypes.c_char], program: Program) -> None:
        self._call("posix_spawn_file_actions_addchdir_np", actions, os.fsencode(program.folder))
        self._call("posix_spawn_file_actions_addopen", actions, 0, _DEV_NULL, os.O_RDONLY, 0)
        self._call("posix_spawn_file_actions_adddup2", actions, program.stdout, 1)
        self._call("posix_spawn_file_actions_adddup2", actions, program.stderr, 2)

    def _call(self, name: str, *arguments: Any, subject: str | None = None) -> None:
        """Call a function that returns the number of an error. Raises ``OSError``."""
        error = getattr(self._libc, name)(*arguments)
        if error:
            raise OSError(error, os.strerror(error), subject)


def _strings(texts: Iterable[str]) -> ctypes.Array[c_char_p]:
    """Return an array of C strings that ends with a null pointer."""
    encoded = [os.fsencode(text) for text in texts]
    return (c_char_p * (len(encoded) + 1))(*encoded)
