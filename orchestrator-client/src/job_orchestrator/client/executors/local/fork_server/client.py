"""Client of the fork server, a small process that starts scripts directly in their cgroups.

Moving a process into a cgroup takes 10 to 20 ms on an idle machine, and only one process can be
moved at a time, because the kernel waits until every CPU has passed a quiescent state
(percpu_down_write in Linux' kernel/cgroup/cgroup.c). Starting a process directly in a cgroup avoids
this wait: clone3(2) with CLONE_INTO_CGROUP. Python does not offer that call, and this process
cannot make it safely itself, because it has threads. The C library can since glibc 2.39, see
``native_start``; the fork server is for older ones and for scripts of another user. The processes
that it starts are children of this process (CLONE_PARENT).
"""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from job_orchestrator.client.executors.local.child import Child, Program
from job_orchestrator.client.executors.local.fork_server.program import ANSWER, LENGTH

PROGRAM = Path(__file__).with_name("program.py")
ANSWER_TIMEOUT_S = 10.0
END_TIMEOUT_S = 5.0


class ForkServer:
    """The fork server process. It starts with the first request, and again if it has died.

    The process is in the session of this process, so it is not taken for one that a script left.
    All methods block.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    @property
    def pid(self) -> int:
        """Pid of the fork server; 0 if it does not run."""
        process = self._process
        return process.pid if process is not None else 0

    def start(self, program: Program, cgroup: Path) -> Child:
        """Start a program in a cgroup; see ``CgroupStarter``."""
        body = json.dumps(
            {
                "command": list(program.command),
                "cwd": str(program.folder),
                "environment": dict(program.environment),
                "user": program.user,
            }
        ).encode()
        descriptor = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with self._lock:
                pid, error = self._request(body, [descriptor, program.stdout, program.stderr])
        finally:
            os.close(descriptor)
        if error:
            if pid > 0:
                Child(pid).wait()
            raise OSError(error, os.strerror(error), program.command[0])
        return Child(pid)

    def close(self) -> None:
        """End the fork server. The processes that it started go on."""
        with self._lock:
            self._end()

    def _request(self, body: bytes, descriptors: Sequence[int]) -> tuple[int, int]:
        channel = self._connect()
        try:
            message = LENGTH.pack(len(body)) + body
            sent = socket.send_fds(channel, [message], descriptors)
            channel.sendall(message[sent:])
            answer = channel.recv(ANSWER.size)
            if not answer:
                raise ConnectionResetError("the fork server has ended")
            pid, error = ANSWER.unpack(answer)
        except (TimeoutError, ConnectionError):
            # Killed before its channel is closed: if it goes on, it must not start the script.
            if self._process is not None:
                self._process.kill()
            self._end()
            raise
        return pid, error

    def _connect(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
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
