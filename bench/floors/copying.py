"""How fast a large file goes from one process to the disk of another, through a socket.

Run as a program it is the other process: ``copying.py take FOLDER`` or ``copying.py give FILE``.
It prints its port, and serves connections one after the other until its standard input ends.
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
    """Seconds until ``size`` bytes, ``block`` over and over, are on the disk of another process.

    Received with one buffer of a MiB, written, flushed; the file is removed again.
    """
    with _other("take", folder) as port, socket.create_connection(("127.0.0.1", port)) as peer:
        begun = time.perf_counter()
        peer.sendall(_SIZE.pack(size))
        send_repeatedly(peer, block, size)
        if not peer.recv(1):
            raise ConnectionError("The receiver of the floor failed")
        return time.perf_counter() - begun


def sendfile_s(file: Path, size: int) -> float:
    """Seconds until the first ``size`` bytes of ``file`` have come from another process.

    Sent with sendfile; what comes is dropped.
    """
    with _other("give", file) as port, socket.create_connection(("127.0.0.1", port)) as peer:
        begun = time.perf_counter()
        peer.sendall(_SIZE.pack(size))
        drain(peer, size)
        return time.perf_counter() - begun


def send_repeatedly(peer: socket.socket, block: bytes, size: int) -> None:
    """Send ``size`` bytes."""
    for _ in range(size // len(block)):
        peer.sendall(block)
    peer.sendall(block[: size % len(block)])


def drain(peer: socket.socket, size: int) -> None:
    """Receive ``size`` bytes and drop them."""
    buffer = bytearray(BLOCK_BYTES)
    while size > 0:
        received = peer.recv_into(buffer, min(size, BLOCK_BYTES))
        if not received:
            raise ConnectionError("The connection ended too early")
        size -= received


@contextmanager
def _other(what: str, path: Path) -> Iterator[int]:
    """The other process; yields its port."""
    command = [sys.executable, __file__, what, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdout is None or process.stdin is None:
            raise AssertionError
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


def _take(peer: socket.socket, folder: Path) -> None:
    size = _size_from(peer)
    buffer = bytearray(BLOCK_BYTES)
    path = folder / "copied"
    with path.open("wb", buffering=0) as file:
        while size > 0:
            received = peer.recv_into(buffer, min(size, BLOCK_BYTES))
            if not received:
                raise ConnectionError("The connection ended too early")
            file.write(memoryview(buffer)[:received])
            size -= received
        os.fsync(file.fileno())
    peer.sendall(b"k")
    path.unlink()


def _give(peer: socket.socket, path: Path) -> None:
    with path.open("rb") as file:
        peer.sendfile(file, count=_size_from(peer))


def _size_from(peer: socket.socket) -> int:
    (size,) = _SIZE.unpack(peer.recv(_SIZE.size, socket.MSG_WAITALL))
    return int(size)


def _serve(what: str, path: Path) -> None:
    serve = {"take": _take, "give": _give}[what]
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
