"""Client of the fork server, a small process that starts scripts directly in their cgroups.

Moving a process into a cgroup takes 10 to 20 ms on an idle machine, and only one process can be
moved at a time, because the kernel waits until every CPU has passed a quiescent state
(percpu_down_write in Linux' kernel/cgroup/cgroup.c). Starting a process directly in a cgroup avoids
this wait: clone3(2) with CLONE_INTO_CGROUP. Python does not offer that call, and this process
cannot make it safely itself, because it has threads. The C library can since glibc 2.39, see
``native_start``; the fork server is for older ones and for scripts of another user. The processes
that it starts are children of this process (CLONE_PARENT).
"""

import asyncio
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

from job_orchestrator.client.executors.local.child import Child, Program
from job_orchestrator.client.executors.local.fork_server.program import ANSWER, REQUEST
from job_orchestrator.common.runtime.short_work import ShortWork
from job_orchestrator.common.runtime.threads import PendingResult, in_thread

PROGRAM = Path(__file__).with_name("program.py")
ANSWER_TIMEOUT_S = 10.0
END_TIMEOUT_S = 5.0


class ForkServer:
    """The fork server process. It starts with the first request, and again if it has died.

    The process is in the session of this process, so it is not taken for one that a script left.
    All methods except ``start_in_loop`` block. That one is for one event loop, and must not be used
    while a thread uses ``start``.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turn = asyncio.Lock()
        self._short = ShortWork()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    @property
    def pid(self) -> int:
        """Pid of the fork server; 0 if it does not run."""
        process = self._process
        return process.pid if process is not None else 0

    def start(self, program: Program, cgroup: Path) -> Child:
        """Start a program in a cgroup; see ``CgroupStarter``."""
        with self._lock:
            channel = self._connect()
            try:
                _send(channel, program, cgroup)
                answer = _receive(channel)
            except (TimeoutError, ConnectionError):
                self._abort()
                raise
        return _child(answer, program)

    async def start_in_loop(self, program: Program, cgroup: Path) -> Child:
        """Start a program like ``start``, in the event loop, which goes on in the meantime.

        After a cancellation the program may run.
        """
        async with self._turn:
            channel = self._channel
            if channel is None or not self._is_alive():
                channel = await in_thread(self._connect)
            try:
                await self._short.run(_send, channel, program, cgroup)
                await _until_readable(channel)
                answer = await self._short.run(_receive, channel)
            except (TimeoutError, ConnectionError, asyncio.CancelledError):
                await in_thread(self._abort)
                raise
        return _child(answer, program)

    def close(self) -> None:
        """End the fork server. The processes that it started go on."""
        with self._lock:
            self._end()

    def _is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _connect(self) -> socket.socket:
        if self._process is not None and not self._is_alive():
            self._end()
        if self._channel is None:
            ours, theirs = socket.socketpair()
            try:
                with theirs:
                    self._process = subprocess.Popen(  # noqa: S603
                        [sys.executable, "-I", "-S", PROGRAM],
                        env={},
                        stdin=theirs.fileno(),
                        stdout=subprocess.DEVNULL,
                    )
            except BaseException:
                ours.close()
                raise
            ours.settimeout(ANSWER_TIMEOUT_S)
            self._channel = ours
        return self._channel

    def _abort(self) -> None:
        """End the fork server with its request: an answer that comes late is for no other one.

        It is killed before its channel is closed: if it goes on, it must not start the script.
        """
        if self._process is not None:
            self._process.kill()
        self._end()

    def _end(self) -> None:
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            try:
                self._process.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._channel = self._process = None


def _send(channel: socket.socket, program: Program, cgroup: Path) -> None:
    """Send the request to start a program. Raises ``OSError``."""
    variables = (f"{name}={value}" for name, value in program.environment.items())
    strings = (str(program.folder), *program.command, *variables, "")
    body = os.fsencode("\0".join(strings))
    uid, gid = program.user or (0, 0)
    words = len(program.command)
    header = REQUEST.pack(len(body), words, program.user is not None, uid, gid)
    message = header + body
    descriptor = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        descriptors = [descriptor, program.stdout, program.stderr]
        sent = socket.send_fds(channel, [message], descriptors)
    finally:
        os.close(descriptor)
    if sent < len(message):
        channel.sendall(message[sent:])


def _receive(channel: socket.socket) -> tuple[int, int]:
    """Receive the answer: a pid and an error number. Raises ``ConnectionError``."""
    answer = channel.recv(ANSWER.size)
    if not answer:
        raise ConnectionResetError("the fork server has ended")
    pid, error = ANSWER.unpack(answer)
    return pid, error


def _child(answer: tuple[int, int], program: Program) -> Child:
    """Return the process that was started. Raises ``OSError`` if none runs."""
    pid, error = answer
    if error:
        if pid > 0:
            Child(pid).wait()
        raise OSError(error, os.strerror(error), program.command[0])
    return Child(pid)


async def _until_readable(channel: socket.socket) -> None:
    """Wait for an answer; a cancellation takes effect afterwards. Raises ``TimeoutError``."""
    loop = asyncio.get_running_loop()
    pending: PendingResult[None] = PendingResult(loop)
    loop.add_reader(channel, _settle, pending, None)
    timer = loop.call_later(ANSWER_TIMEOUT_S, _settle, pending, TimeoutError("no answer"))
    try:
        await pending.wait()
    finally:
        timer.cancel()
        loop.remove_reader(channel)


def _settle(pending: PendingResult[None], error: BaseException | None) -> None:
    if pending.settled:
        return
    if error is not None:
        pending.fail(error)
    else:
        pending.succeed(None)
