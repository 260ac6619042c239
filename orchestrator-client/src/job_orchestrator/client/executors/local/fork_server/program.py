"""Program of the fork server: starts each script directly in its cgroup (see ``client``).

The program is run by its path and imports the standard library alone, because a fork takes longer
the more memory the process has. It has one thread, which makes a fork without the precautions of
the C library safe.

A request is its length and JSON, with descriptors of the cgroup's folder and of the script's two
output files. The answer is a pid and an error number. The program ends when its standard input is
closed.
"""

import ctypes
import json
import os
import signal
import socket
import struct
from typing import Any

LENGTH = struct.Struct("=I")
ANSWER = struct.Struct("=ii")
DESCRIPTORS = 3

_BLOCK_BYTES = 1 << 16

# From Linux' include/uapi/linux/sched.h and prctl.h; the number is the same on every architecture.
_SYS_CLONE3 = 435
_CLONE_ARGS = struct.Struct("=11Q")
_CLONE_PARENT = 0x8000
_CLONE_INTO_CGROUP = 0x2_0000_0000
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38

# A terminal or a service manager sends these to all processes, but they are for jo-client alone:
# the fork server ends after jo-client.
_FOR_THE_CLIENT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Python ignores these from its start, and a script would inherit that.
_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)

# PyDLL keeps the interpreter's lock, so that nothing runs between the fork and the next statement.
_libc = ctypes.PyDLL(None, use_errno=True)


def main() -> None:
    """Answer requests until the channel is closed."""
    for number in _FOR_THE_CLIENT:
        signal.signal(number, lambda *_: None)  # a handler, because exec resets handlers
    for number in _IGNORED:
        signal.signal(number, signal.SIG_DFL)
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # scripts cannot read its memory
    with socket.socket(fileno=0) as channel:
        while (received := _receive(channel)) is not None:
            request, descriptors = received
            answer = _start(request, *descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            channel.sendall(ANSWER.pack(*answer))


def _receive(channel: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    flags = socket.MSG_CMSG_CLOEXEC
    data, descriptors, _, _ = socket.recv_fds(channel, _BLOCK_BYTES, DESCRIPTORS, flags)
    if not data:
        return None
    (length,) = LENGTH.unpack_from(data)
    body = bytearray(data[LENGTH.size :])
    while len(body) < length:
        block = channel.recv(_BLOCK_BYTES)
        if not block:
            return None
        body += block
    return json.loads(body), descriptors


def _start(request: dict[str, Any], cgroup: int, stdout: int, stderr: int) -> tuple[int, int]:
    """Start a process; return its pid, -1 if there is none, and the number of the error, or 0.

    If both a pid and an error are returned, the process has ended and must still be waited for.
    """
    report, failed = os.pipe()
    arguments = _CLONE_ARGS.pack(
        _CLONE_PARENT | _CLONE_INTO_CGROUP, 0, 0, 0, 0, 0, 0, 0, 0, 0, cgroup
    )
    pid = _libc.syscall(_SYS_CLONE3, arguments, len(arguments))
    if pid == 0:
        _become(request, stdout, stderr, failed)
    error = ctypes.get_errno()
    os.close(failed)
    with os.fdopen(report, "rb") as reported:
        return (pid, int(reported.read() or 0)) if pid > 0 else (-1, error)


def _become(request: dict[str, Any], stdout: int, stderr: int, failed: int) -> None:
    """Execute the script. Runs in the new process; never returns."""
    try:
        os.setsid()
        os.chdir(request["cwd"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        if request["user"] is not None:
            uid, gid = request["user"]
            _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
        os.execve(request["command"][0], request["command"], request["environment"])  # noqa: S606
    except OSError as error:
        os.write(failed, str(error.errno).encode())
    finally:
        os._exit(127)


if __name__ == "__main__":
    main()
