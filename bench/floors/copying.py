"""Floor for large files: the time to copy through a socket, from process to process.

As a program it is the peer process: ``copying.py receive FOLDER`` or ``copying.py send FILE``. It
prints its port, and serves connections one after the other until its standard input is closed.
"""

import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BLOCK_BYTES = 1 << 20
_SIZE = struct.Struct("!Q")


def socket_to_disk_s(folder: Path, block: bytes, size: int) -> float:
    """Return the seconds to send ``size`` bytes to a process that writes and flushes them.

    ``block`` is sent repeatedly. The receiver uses a buffer of 1 MiB and removes the file.
    """
    with (
        _peer_process("receive", folder) as port,
        socket.create_connection(("127.0.0.1", port)) as peer,
    ):
        begun = time.perf_counter()
        peer.sendall(_SIZE.pack(size))
        send_repeatedly(peer, block, size)
        if not peer.recv(1):
            raise ConnectionError("the receiving process failed")
        return time.perf_counter() - begun


def sendfile_s(file: Path, size: int) -> float:
    """Return the seconds to receive ``size`` bytes of ``file`` from a process that uses sendfile.

    The received data is dropped.
    """
    with _peer_process("send", file) as port, socket.create_connection(("127.0.0.1", port)) as peer:
        begun = time.perf_counter()
        peer.sendall(_SIZE.pack(size))
        drain(peer, size)
        return time.perf_counter() - begun


def send_repeatedly(peer: socket.socket, block: bytes, size: int) -> None:
    """Send ``size`` bytes by repeating ``block``."""
    for _ in range(size // len(block)):
        peer.sendall(block)
    peer.sendall(block[: size % len(block)])


def drain(peer: socket.socket, size: int) -> None:
    """Receive ``size`` bytes and discard them."""
    buffer = bytearray(BLOCK_BYTES)
    while size > 0:
        received = peer.recv_into(buffer, min(size, BLOCK_BYTES))
        if not received:
            raise ConnectionError("the connection was closed too early")
        size -= received


@contextmanager
def _peer_process(command: str, path: Path) -> Iterator[int]:
    """Run the peer process and yield its port."""
    arguments = [sys.executable, __file__, command, str(path)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdout is None or process.stdin is None:
            raise AssertionError
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


def _receive(peer: socket.socket, folder: Path) -> None:
    size = _size_from(peer)
    buffer = bytearray(BLOCK_BYTES)
    path = folder / "copied"
    with path.open("wb", buffering=0) as file:
        while size > 0:
            received = peer.recv_into(buffer, min(size, BLOCK_BYTES))
            if not received:
                raise ConnectionError("the connection was closed too early")
            file.write(memoryview(buffer)[:received])
            size -= received
        os.fsync(file.fileno())
    peer.sendall(b"k")
    path.unlink()


def _send(peer: socket.socket, path: Path) -> None:
    with path.open("rb") as file:
        peer.sendfile(file, count=_size_from(peer))


def _size_from(peer: socket.socket) -> int:
    (size,) = _SIZE.unpack(peer.recv(_SIZE.size, socket.MSG_WAITALL))
    return int(size)


def _serve(command: str, path: Path) -> None:
    serve = {"receive": _receive, "send": _send}[command]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()

        def until_stdin_closes() -> None:
            sys.stdin.read()
            os._exit(0)

        threading.Thread(target=until_stdin_closes, daemon=True).start()
        while True:
            peer, _ = listener.accept()
            with peer:
                serve(peer, path)


if __name__ == "__main__":
    _serve(sys.argv[1], Path(sys.argv[2]))
