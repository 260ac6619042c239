"""The program of the fork server: forks each script straight into its cgroup. See ``fork_server``.

It is run by its path, with the standard library alone: a fork copies what it has, and takes the
longer the more that is. One thread, so that a fork without the precautions of libc's is safe.

A request is its length and JSON, with descriptors of the cgroup's folder and of the script's
output; the answer is a pid and an error number. It ends when its standard input does.
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

# Meant for jo-client, with which it ends: sent to a terminal's programs, or to a unit's processes.
_NOT_FOR_IT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What Python ignores from its start; a script would go on ignoring it.
_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)

# Keeps the interpreter's lock: nothing may run between the fork and what follows it.
_libc = ctypes.PyDLL(None, use_errno=True)


def main() -> None:
    """Answer requests until there are no more."""
    for number in _NOT_FOR_IT:
        signal.signal(number, lambda *_: None)  # a handler, because exec resets those
    for number in _IGNORED:
        signal.signal(number, signal.SIG_DFL)
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # no script looks into it
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


def _start(request: dict[str, Any], group: int, stdout: int, stderr: int) -> tuple[int, int]:
    """Pid of the new process, -1 if there is none, and the number of what went wrong.

    With both, the process has ended, and is to be waited for all the same.
    """
    report, failed = os.pipe()
    arguments = _CLONE_ARGS.pack(
        _CLONE_PARENT | _CLONE_INTO_CGROUP, 0, 0, 0, 0, 0, 0, 0, 0, 0, group
    )
    pid = _libc.syscall(_SYS_CLONE3, arguments, len(arguments))
    if pid == 0:
        _become(request, stdout, stderr, failed)
    error = ctypes.get_errno()
    os.close(failed)
    with os.fdopen(report, "rb") as told:
        return (pid, int(told.read() or 0)) if pid > 0 else (-1, error)


def _become(request: dict[str, Any], stdout: int, stderr: int, failed: int) -> None:
    """In the new process: become the script."""
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
