"""A disk of its own, whose power can be cut: an ext4 file system on a loop device."""

import fcntl
import os
import struct
import subprocess
from pathlib import Path

EXT4_IOC_SHUTDOWN = 0x8004587D
"""``_IOR('X', 125, __u32)`` in fs/ext4/ext4.h of the kernel."""

NO_LOG_FLUSH = 2
"""``EXT4_GOING_FLAGS_NOLOGFLUSH``: what was not flushed before is lost, the journal included."""

SIZE_BYTES = 256 << 20


class CanNotMount(Exception):
    """Error of a machine without loop devices, mounts or ext4."""


class Disk:
    """A mounted file system. ``folder`` is where it is mounted."""

    def __init__(self, image: Path, folder: Path) -> None:
        self.folder = folder
        self._image = image
        self._cuts = 0

    def make(self) -> None:
        """Create the file system and mount it. Raises ``CanNotMount``."""
        with self._image.open("wb") as file:
            file.truncate(SIZE_BYTES)
        self.folder.mkdir(exist_ok=True)
        _run("mkfs.ext4", "-q", "-F", str(self._image))
        self._mount()

    def cut_power(self) -> None:
        """Lose everything that was not flushed to the disk. All later writes fail."""
        self._cuts += 1
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(folder)

    def restore_power(self) -> None:
        """Mount what had reached the disk. No process may use it.

        A copy is mounted: the kernel keeps the file system without power as long as another process
        has it mounted as well, and would mount that again.
        """
        copy = self._image.with_name(f"{self._image.name}-{self._cuts}")
        _run("cp", "--sparse=always", str(self._image), str(copy))
        self.remove()
        self._image.unlink()
        self._image = copy
        self._mount()

    def remove(self) -> None:
        """Unmount the file system, even if a process still uses it."""
        subprocess.run(["umount", "-l", str(self.folder)], capture_output=True)

    def _mount(self) -> None:
        # The kernel must not write by itself what a service has not flushed.
        _run("mount", "-o", "loop,commit=300", str(self._image), str(self.folder))


def _run(*command: str) -> None:
    try:
        subprocess.run(command, capture_output=True, check=True, text=True)
    except FileNotFoundError as error:
        raise CanNotMount(str(error)) from error
    except subprocess.CalledProcessError as error:
        raise CanNotMount(error.stderr) from error
