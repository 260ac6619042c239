"""Program of the fork server: starts each script directly in its cgroup (see ``client``).

The program is run by its path and imports little of the standard library, because a fork takes
longer the more memory the process has. It has one thread, which makes a fork without the
precautions of the C library safe. Each page that the child writes is copied first, so the fork
server prepares in itself all that the child can inherit: work folder, input and output.

A request is a ``REQUEST`` and its strings, each ended by a null byte: work folder, words of the
command, variables of the environment. Descriptors of the cgroup's folder and of the script's two
output files come with it. The ``ANSWER`` is a pid and an error number. The program ends when its
standard input is closed.
"""

import ctypes
import gc
import mmap
import os
import struct

# The modules ``signal`` and ``socket`` themselves import much more.
from _signal import (  # type: ignore[import-not-found]
    SIG_DFL,
    SIGHUP,
    SIGINT,
    SIGPIPE,
    SIGTERM,
    SIGXFSZ,
    signal,
)
from _socket import CMSG_SPACE, MSG_CMSG_CLOEXEC, socket

REQUEST = struct.Struct("=IIiii")
"""Bytes of the strings, words of the command, 1 if a user follows, and its uid and gid."""

ANSWER = struct.Struct("=ii")
DESCRIPTORS = struct.Struct("=3i")

_BLOCK_BYTES = 1 << 16

# From Linux' include/uapi/linux/sched.h and prctl.h; the number is the same on every architecture.
_SYS_CLONE3 = 435
_CLONE_ARGS = struct.Struct("=11Q")
_CLONE_VFORK = 0x4000
_CLONE_PARENT = 0x8000
_CLONE_INTO_CGROUP = 0x2_0000_0000
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38

# A terminal or a service manager sends these to all processes, but they are for jo-client alone:
# the fork server ends after jo-client.
_FOR_THE_CLIENT = (SIGINT, SIGTERM, SIGHUP)
# Python ignores these from its start, and a script would inherit that.
_IGNORED = (SIGPIPE, SIGXFSZ)

# PyDLL keeps the interpreter's lock, so that nothing runs between the fork and the next statement.
_libc = ctypes.PyDLL(None, use_errno=True)

_ERROR = struct.Struct("=i")
_shared = mmap.mmap(-1, _ERROR.size)
"""Memory in which a child reports the error number why it cannot execute its program."""


class _Request:
    """A request to start a script."""

    def __init__(self, words: int, user: tuple[int, int] | None, strings: list[bytes]) -> None:
        self.user = user
        self.folder = strings[0]
        self.command = strings[1 : words + 1]
        variables = (variable.partition(b"=") for variable in strings[words + 1 :])
        self.environment = {name: value for name, _, value in variables}


def main() -> None:
    """Answer requests until the channel is closed."""
    for number in _FOR_THE_CLIENT:
        signal(number, lambda *_: None)  # a handler, because exec resets handlers
    for number in _IGNORED:
        signal(number, SIG_DFL)
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # scripts cannot read its memory
    channel = socket(fileno=os.dup(0))
    empty = os.open(os.devnull, os.O_RDWR)
    errors = os.dup(2)
    os.dup2(empty, 0)
    gc.disable()  # a collection writes to every object
    while (received := _receive(channel)) is not None:
        request, (cgroup, stdout, stderr) = received
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        answer = _start(request, cgroup)
        # Nothing of a payload is kept open or in use.
        os.dup2(empty, 1)
        os.dup2(errors, 2)
        for descriptor in (cgroup, stdout, stderr):
            os.close(descriptor)
        os.chdir("/")
        channel.sendall(ANSWER.pack(*answer))


def _receive(channel: socket) -> tuple[_Request, tuple[int, ...]] | None:
    space = CMSG_SPACE(DESCRIPTORS.size)
    data, control, _, _ = channel.recvmsg(_BLOCK_BYTES, space, MSG_CMSG_CLOEXEC)
    if not data:
        return None
    length, words, has_user, uid, gid = REQUEST.unpack_from(data)
    body = data[REQUEST.size :]
    while len(body) < length:
        block = channel.recv(_BLOCK_BYTES)
        if not block:
            return None
        body += block
    user = (uid, gid) if has_user else None
    request = _Request(words, user, body.split(b"\0")[:-1])
    return request, DESCRIPTORS.unpack(control[0][2])


def _start(request: _Request, cgroup: int) -> tuple[int, int]:
    """Start a process; return its pid, -1 if there is none, and the number of the error, or 0.

    If both a pid and an error are returned, the process has ended and must still be waited for.
    This process sleeps until the child has executed its program, or has ended (CLONE_VFORK).
    """
    try:
        os.chdir(request.folder)
    except OSError as error:
        return -1, error.errno or 0
    flags = _CLONE_VFORK | _CLONE_PARENT | _CLONE_INTO_CGROUP
    arguments = _CLONE_ARGS.pack(flags, 0, 0, 0, 0, 0, 0, 0, 0, 0, cgroup)
    _ERROR.pack_into(_shared, 0, 0)
    pid = _libc.syscall(_SYS_CLONE3, arguments, len(arguments))
    if pid == 0:
        _become(request)
    if pid < 0:
        return -1, ctypes.get_errno()
    return pid, _ERROR.unpack_from(_shared)[0]


def _become(request: _Request) -> None:
    """Execute the script. Runs in the new process; never returns."""
    try:
        os.setsid()
        if request.user is not None:
            uid, gid = request.user
            _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
        os.execve(request.command[0], request.command, request.environment)  # noqa: S606
    except OSError as error:
        _ERROR.pack_into(_shared, 0, error.errno or 0)
    finally:
        os._exit(127)


if __name__ == "__main__":
    main()
