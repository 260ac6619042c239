"""Durable writes, and files that are written to the disk while they arrive."""

import os
from pathlib import Path

import pytest

from job_orchestrator.common.errors import StorageFull
from job_orchestrator.common.storage.durable import (
    WriteBehind,
    fsync_tree,
    full_disk_as_domain_error,
    write_durably,
)


def test_write_durably_replaces_the_content_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    write_durably(tmp_path / "x", b"one")
    write_durably(tmp_path / "x", b"two")
    fsync_tree(tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"x": b"two"}


def test_only_errors_of_a_full_disk_become_storage_full() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(StorageFull), full_disk_as_domain_error():
            os.write(descriptor, b"x")
    finally:
        os.close(descriptor)
    with pytest.raises(FileNotFoundError), full_disk_as_domain_error():
        Path("/nowhere/x").read_bytes()


def in_memory(path: Path) -> int:
    """Return how many of the first 64 KiB of a file can be read without the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.preadv(descriptor, [bytearray(1 << 16)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return 0
    except OSError as error:
        pytest.skip(f"this file system doesn't support it: {error}")
    finally:
        os.close(descriptor)


def test_write_behind_keeps_the_file_in_memory(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb", buffering=0) as file:
        behind = WriteBehind(file.fileno())
        for _ in range(4):
            file.write(bytes(8 << 20))
            behind.wrote(8 << 20)
        os.fsync(file.fileno())
    assert in_memory(tmp_path / "x") == 1 << 16
