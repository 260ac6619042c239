"""Writer of multipart/form-data bodies: streamed from files, with a known Content-Length.

aiohttp's ``FormData`` reads only 64 KiB per thread hop, and percent-encodes names, which peers do
not decode.
"""

import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO, FileIO
from pathlib import Path
from typing import Protocol

from job_orchestrator.common.protocol.multipart_names import escape, file_disposition
from job_orchestrator.common.runtime.threads import in_thread

BLOCK_BYTES = 1 << 20


class Readable(Protocol):
    """An open binary file that can be read again from an earlier position."""

    def read(self, size: int = ..., /) -> bytes:
        """Return at most ``size`` bytes; none at the end."""

    def seek(self, offset: int, whence: int = ..., /) -> int:
        """Change the position."""

    def tell(self) -> int:
        """Return the position."""


@dataclass(frozen=True)
class FormFile:
    """A file to send: its checked path in the form, its source, its size in bytes.

    An open file is sent from ``start`` on, at each attempt to send the body; it stays open.
    """

    path: str
    source: Path | bytes | Readable
    size: int
    start: int = 0


class FormBody:
    """One request body: the ``headers`` of the request, and ``content`` or iterable blocks.

    The fields precede the files; a name may occur several times.
    """

    def __init__(self, files: list[FormFile], fields: Iterable[tuple[str, str]] = ()) -> None:
        self._files = files
        self._given = tuple(fields)
        boundary = f"jo-{secrets.token_hex(16)}"
        self._parts = [(_file_head(boundary, file.path), file) for file in files]
        self._fields = b"".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{escape(name)}"\r\n\r\n'
            f"{value}\r\n".encode()
            for name, value in self._given
        )
        self._tail = f"--{boundary}--\r\n".encode()
        size = sum(len(head) + file.size + len(b"\r\n") for head, file in self._parts)
        self._size = size + len(self._fields) + len(self._tail)
        self.content: bytes | None = None
        self.headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(self._size),
        }

    def with_files(self, files: Sequence[FormFile]) -> "FormBody":
        """Return a body with further files, whose content is not loaded."""
        return FormBody([*self._files, *files], self._given)

    def load_if_small(self) -> None:
        """Load a small body into ``content``. Blocks: call it in a thread.

        Raises ``OSError``, also if a file has changed its size.
        """
        if self._size <= BLOCK_BYTES:
            parts: list[bytes | FormFile] = [self._fields]
            for head, file in self._parts:
                parts += (head, file, b"\r\n")
            self.content = _join([*parts, self._tail])

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield blocks of about a MiB. Small files are joined, so that few thread hops are needed.

        Raises ``OSError``, also if a file has changed its size.
        """
        gathered: list[bytes | FormFile] = [self._fields]
        size = 0
        for head, file in self._parts:
            gathered.append(head)
            if file.size > BLOCK_BYTES:
                yield await in_thread(_join, gathered)
                gathered, size = [], 0
                async for block in _blocks(file):
                    yield block
            else:
                gathered.append(file)
                size += file.size
            gathered.append(b"\r\n")
            if size >= BLOCK_BYTES:
                yield await in_thread(_join, gathered)
                gathered, size = [], 0
        gathered.append(self._tail)
        yield await in_thread(_join, gathered)


def _join(parts: list[bytes | FormFile]) -> bytes:
    return b"".join(part if isinstance(part, bytes) else _read_exactly(part) for part in parts)


def _file_head(boundary: str, path: str) -> bytes:
    return (
        f"--{boundary}\r\n"
        f"Content-Disposition: {file_disposition(path)}\r\n"
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()


def _open(file: FormFile) -> Readable:
    if isinstance(file.source, Path):
        return file.source.open("rb", buffering=0)
    if isinstance(file.source, bytes):
        return BytesIO(file.source)
    file.source.seek(file.start)
    return file.source


def _read_exactly(file: FormFile) -> bytes:
    if isinstance(file.source, Path):
        content = file.source.read_bytes()
    else:
        content = _open(file).read(file.size)
    if len(content) != file.size:
        raise OSError(f"{file.path} changed its size while it was sent")
    return content


async def _blocks(file: FormFile) -> AsyncIterator[bytes]:
    source = await in_thread(_open, file)
    left = file.size
    try:
        while left > 0:
            block = await in_thread(source.read, min(BLOCK_BYTES, left))
            if not block:
                raise OSError(f"{file.path} changed its size while it was sent")
            left -= len(block)
            yield block
    finally:
        if isinstance(source, FileIO) and source is not file.source:
            source.close()
