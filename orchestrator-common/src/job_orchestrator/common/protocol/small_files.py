"""The files of a small job as one block of bytes (MessagePack).

The server stores the block with the job and sends it to a client unchanged; the client decodes it.
Both ends apply the rules of uploaded files, so that neither depends on the checks of the other.
"""

from collections.abc import Sequence

import msgspec

from job_orchestrator.common.errors import BadRequest
from job_orchestrator.common.protocol.paths import check_path, collision, parents

MAX_FILES = 256
"""Files in one block. Their paths, too, stay small: a path has at most 1024 bytes."""

MAX_CONTENT_BYTES = 1 << 20
"""Bytes of all files of a block together."""


class InvalidSmallFiles(BadRequest):
    """The block of bytes does not hold the files of a small job."""


class SmallFile(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """One file. ``name`` is its path, relative to the job's folder."""

    name: str
    content: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[SmallFile])


def encode_files(files: Sequence[SmallFile]) -> bytes:
    """Encode files, whose names are checked paths."""
    return _encoder.encode(files)


def decode_files(block: bytes) -> list[SmallFile]:
    """Decode files and check them, in the order in which they were encoded.

    Raises ``InvalidSmallFiles``; ``UnsafePath`` for a name that is not a plain relative path.
    """
    try:
        files = _decoder.decode(block)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidSmallFiles(f"The files of the job can't be decoded: {error}") from error
    if len(files) > MAX_FILES:
        raise InvalidSmallFiles(f"The job has {len(files)} files, and may have {MAX_FILES}")
    size = sum(len(file.content) for file in files)
    if size > MAX_CONTENT_BYTES:
        raise InvalidSmallFiles(f"The files have {size} bytes, and may have {MAX_CONTENT_BYTES}")
    taken: set[str] = set()
    folders: set[str] = set()
    for file in files:
        problem = collision(check_path(file.name), taken, folders)
        if problem is not None:
            raise InvalidSmallFiles(problem)
        taken.add(file.name)
        folders.update(parents(file.name))
    return files
