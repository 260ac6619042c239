"""Speed of a large file from one process through a socket to the disk of another.

Run as a program, the module is the other process: ``copying.py take FOLDER`` or
``copying.py give FILE``. It prints its port and serves one connection after the other until its
standard input ends.
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
    """Measure the seconds until ``size`` bytes are on the disk of another process.

    The process receives with one buffer of a MiB, writes, flushes, and removes the file.
    """
    with _other("take", folder) as port, socket.create_connection(("127.0.0.1", port)) as peer:
        begun = time.perf_counter()
        peer.sendall(_SIZE.pack(size))
        send_over_and_over(peer, block, size)
        if not peer.recv(1):
            raise ConnectionError("The receiver of the floor failed")
        return time.perf_counter() - begun


def sendfile_s(file: Path, size: int) -> float:
    """Measure the seconds to receive ``size`` bytes of ``file`` from another process.

    The process uses sendfile; the bytes are discarded here.
    """
    with _other("give", file) as port, socket.create_connection(("127.0.0.1", port)) as peer:
        begun = time.perf_counter()
        peer.sendall(_SIZE.pack(size))
        drain(peer, size)
        return time.perf_counter() - begun


def send_over_and_over(peer: socket.socket, block: bytes, size: int) -> None:
    """Send ``size`` bytes, a block repeatedly."""
    for _ in range(size // len(block)):
        peer.sendall(block)
    peer.sendall(block[: size % len(block)])


def drain(peer: socket.socket, size: int) -> None:
    """Receive ``size`` bytes and discard them."""
    buffer = bytearray(BLOCK_BYTES)
    while size > 0:
        received = peer.recv_into(buffer, min(size, BLOCK_BYTES))
        if not received:
            raise ConnectionError("The connection ended too early")
        size -= received


@contextmanager
def _other(what: str, path: Path) -> Iterator[int]:
    """Run the other process and yield its port."""
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

        def until_told() -> None:
            sys.stdin.read()
            os._exit(0)

        threading.Thread(target=until_told, daemon=True).start()
        while True:
            peer, _ = listener.accept()
            with peer:
                serve(peer, path)


if __name__ == "__main__":
    _serve(sys.argv[1], Path(sys.argv[2]))
