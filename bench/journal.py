"""A journalled file system for the run, because ext4 without a journal distorts every figure.

There each creation of a file walks over the inodes that were deleted in the last minute
(``recently_deleted`` in fs/ext4/ialloc.c): ten times the CPU time of a file system with a journal.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil

IMAGE_BYTES = 60_000_000_000
"""Size of the sparse image; only what is written takes space."""


def file_system(folder: Path) -> str:
    """Return the type of the file system of ``folder``, and for ext4 whether it has a journal."""
    mounts = [p for p in psutil.disk_partitions(all=True) if folder.is_relative_to(p.mountpoint)]
    if not mounts:
        return "unknown"
    mount = max(mounts, key=lambda each: len(each.mountpoint))
    if mount.fstype != "ext4" or has_journal(folder):
        return str(mount.fstype)
    return "ext4 without a journal"


def has_journal(folder: Path) -> bool:
    """Return whether the block device of ``folder`` has a journal that the kernel writes."""
    number = folder.stat().st_dev
    device = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve().name
    journals = Path("/proc/fs/jbd2")
    return journals.is_dir() and any(
        each.name.rpartition("-")[0] == device for each in journals.iterdir()
    )


@contextlib.contextmanager
def journalled(folder: Path) -> Iterator[Path]:
    """Provide a folder on a file system with a journal, if one can be made.

    If ``folder`` is on ext4 without a journal, and this process may mount, the folder is on an ext4
    in an image file, which is removed at the end. Otherwise it is ``folder`` itself.
    """
    if file_system(folder) != "ext4 without a journal" or os.geteuid() != 0:
        yield folder
        return
    image, target = folder / "image", folder / "mounted"
    target.mkdir()
    try:
        with image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        mkfs = shutil.which("mkfs.ext4") or "/sbin/mkfs.ext4"
        subprocess.run([mkfs, "-q", "-E", "lazy_itable_init=1", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, target], check=True)  # noqa: S607
    except (OSError, subprocess.CalledProcessError):
        image.unlink(missing_ok=True)
        yield folder
        return
    try:
        yield target
    finally:
        subprocess.run(["umount", target], check=True)  # noqa: S607
        image.unlink()
