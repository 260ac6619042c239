"""Disks of the soak: small file systems that can be full, read-only, without inodes or power."""

import asyncio
import contextlib
import itertools
import shutil
import subprocess
import threading
from pathlib import Path

from faults import disk as power

TMPFS = "size=300m,nr_inodes=5000"


class Disk:
    """A small file system for one service, or a folder if this user may not mount one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = asyncio.Lock()  # held while a disk fault is injected
        folder.mkdir(parents=True)
        self.mounted = self._mount()

    def _mount(self) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", TMPFS, "tmpfs", str(self.folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def fill(self) -> bool:
        """Fill the disk; False if it is a plain folder."""
        if self.mounted:
            with contextlib.suppress(OSError), (self.folder / "filler").open("wb") as file:
                while True:
                    file.write(bytes(1 << 20))
        return self.mounted

    def take_inodes(self) -> bool:
        """Use up all inodes; False if it is a plain folder."""
        if self.mounted:
            with contextlib.suppress(OSError):
                (self.folder / "fillers").mkdir()
                for number in itertools.count():
                    (self.folder / "fillers" / str(number)).touch()
        return self.mounted

    def empty(self) -> None:
        """Free what ``fill`` and ``take_inodes`` used."""
        (self.folder / "filler").unlink(missing_ok=True)
        shutil.rmtree(self.folder / "fillers", ignore_errors=True)

    def set_writable(self, *, writable: bool) -> bool:
        """Remount the disk writable or read-only; False if that is not possible now."""
        option = f"remount,{'rw' if writable else 'ro'}"
        command = ["mount", "-o", option, str(self.folder)]
        return self.mounted and subprocess.run(command, capture_output=True).returncode == 0

    def remove(self) -> None:
        """Unmount the disk and remove its folder."""
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=True)
        shutil.rmtree(self.folder, ignore_errors=True)


class PoweredDisk(Disk):
    """A disk whose power can be cut."""

    def __init__(self, folder: Path) -> None:
        self.has_power = True
        self._power = power.Disk(folder.with_name("image"), folder)
        self._switching = threading.Lock()
        super().__init__(folder)

    def _mount(self) -> bool:
        try:
            self._power.make()
        except power.CanNotMount:
            return False
        return True

    def cut_power(self) -> None:
        """Lose everything that was not flushed to the disk. All later writes fail."""
        with self._switching:
            self.has_power = False
            self._power.cut_power()

    def restore_power(self) -> None:
        """Mount what had reached the disk. No process may use it."""
        with self._switching:
            self._power.restore_power()
            self.has_power = True
            self.empty()  # its removal may not have reached the disk
