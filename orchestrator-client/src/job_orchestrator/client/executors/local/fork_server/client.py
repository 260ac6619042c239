"""Starts scripts inside their cgroups, by a small process of its own.

To move a process into a cgroup takes 10 to 20 ms on an idle machine, while no other process can be
moved, because the kernel waits until every CPU has passed a point of rest (percpu_down_write in
Linux' kernel/cgroup/cgroup.c). A process that is born there costs nothing of that: clone3(2) with
CLONE_INTO_CGROUP, which neither Python nor older C libraries offer, and which this process, having
threads, can't call by itself without risk. The server's children are this process's (CLONE_PARENT).
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from job_orchestrator.client.executors.local.fork_server import program as forking
from job_orchestrator.client.model import ScriptUser

PROGRAM = Path(forking.__file__)
ANSWER_TIMEOUT_S = 10.0
END_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Child:
    """A process that was started. Not waited for yet, so that its pid is nobody else's."""

    pid: int

    def wait(self) -> int:
        """Its exit code when it has ended, negative: the signal that ended it. Once only."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self) -> None:
        """KILL it."""
        os.kill(self.pid, signal.SIGKILL)


class ForkServer:
    """Started when it is first needed, and anew should it have died. All of it blocks.

    It is in this process's session, so that nobody takes it for what a script has left.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    @property
    def pid(self) -> int:
        """Its process; 0: none."""
        process = self._process
        return process.pid if process is not None else 0

    def start(
        self,
        command: Sequence[str],
        *,
        group: Path,
        folder: Path,
        environment: Mapping[str, str],
        stdout: int,
        stderr: int,
        user: ScriptUser | None,
    ) -> Child:
        """Start ``command`` in the cgroup and the work folder given, in a session of its own.

        Its first word is a path. With ``user`` it runs as that, in no other groups, and gains no
        rights. Raises ``OSError``; then nothing runs, unless this is a ``TimeoutError`` or a
        ``ConnectionError``: what is in ``group`` is to be killed.
        """
        body = json.dumps(
            {
                "command": list(command),
                "cwd": str(folder),
                "environment": dict(environment),
                "user": user,
            }
        ).encode()
        descriptor = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with self._lock:
                pid, error = self._ask(body, [descriptor, stdout, stderr])
        finally:
            os.close(descriptor)
        if error:
            if pid > 0:
                Child(pid).wait()
            raise OSError(error, os.strerror(error), command[0])
        return Child(pid)

    def close(self) -> None:
        """End it. What it has started goes on."""
        with self._lock:
            self._end()

    def _ask(self, body: bytes, descriptors: Sequence[int]) -> tuple[int, int]:
        channel = self._running()
        try:
            request = forking.LENGTH.pack(len(body)) + body
            sent = socket.send_fds(channel, [request], descriptors)
            channel.sendall(request[sent:])
            answer = channel.recv(forking.ANSWER.size)
            if not answer:
                raise ConnectionResetError("the process that starts scripts has ended")
            pid, error = forking.ANSWER.unpack(answer)
        except (TimeoutError, ConnectionError):
            self._end()
            raise
        return pid, error

    def _running(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            self._end()
        if self._channel is None:
            here, there = socket.socketpair()
            try:
                with there:
                    self._process = subprocess.Popen(  # noqa: S603
                        [sys.executable, "-I", "-S", PROGRAM],
                        env={},
                        stdin=there.fileno(),
                        stdout=subprocess.DEVNULL,
                    )
            except BaseException:
                here.close()
                raise
            here.settimeout(ANSWER_TIMEOUT_S)
            self._channel = here
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
