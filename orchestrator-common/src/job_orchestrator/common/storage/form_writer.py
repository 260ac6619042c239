"""Parts of a form as they are parsed: files to a folder or to memory, fields to memory."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from job_orchestrator.common.errors import BadRequest, FilesTooLarge, TooLarge
from job_orchestrator.common.protocol.paths import collision, parents
from job_orchestrator.common.protocol.small_files import MAX_FILES, SmallFile
from job_orchestrator.common.storage.durable import WriteBehind

MAX_FIELD_BYTES = 1 << 16
MAX_FIELDS = 100

Fields = Mapping[str, Sequence[str]]
"""The values of each field of a form."""


class NotSmall(Exception):
    """The files of a form are too large, or too many, for memory. Never leaves the receiver."""


@dataclass(frozen=True)
class FormLimits:
    """Limits of a form and of its transfer.

    ``max_bytes`` limits the content of all files together, ``max_overhead_bytes`` all other bytes
    of the body: heads with the longest names, and fields. ``max_folders`` limits the folders that
    paths need: a short upload can name millions. ``idle_s`` is how long the sender may send
    nothing. ``min_rate`` is the least average rate in bytes a second, of the time spent waiting for
    the sender, after ``idle_s`` of it; 0: any rate.
    """

    max_bytes: int
    max_files: int = 20_000
    max_folders: int = 20_000
    idle_s: float = 60.0
    min_rate: int = 0
    max_overhead_bytes: int = 128 << 20


@dataclass
class ReceivedForm:
    """A complete form: sizes in bytes by file path, and the values of each of its fields.

    ``digests`` has the SHA-256 of the content by file path, where they were wanted. ``small`` has
    the files if they are small; they are then not written to the folder.
    """

    files: dict[str, int] = field(default_factory=dict)
    fields: dict[str, list[str]] = field(default_factory=dict)
    digests: dict[str, bytes] = field(default_factory=dict)
    small: Sequence[SmallFile] | None = None


class FileTarget(Protocol):
    """Destination of the files of a form. Files are written one after another."""

    def prepare(self) -> None:
        """Make the destination usable. Called before each block; idempotent."""

    def open(self, path: str, added_folders: Sequence[str]) -> None:
        """Begin a file; ``added_folders`` are those of its folders that are not there yet."""

    def write(self, data: memoryview) -> None:
        """Append to the file that was begun last."""

    def close(self) -> None:
        """End the file that was begun last. Does nothing if none is open."""


class FormWriter:
    """Checks the parts of a form against its limits, and passes files on. A ``PartSink``.

    Used by one thread at a time.
    """

    def __init__(
        self, target: FileTarget, limits: FormLimits, wants_digests: Callable[[Fields], bool]
    ) -> None:
        self.form = ReceivedForm()
        self._wants_digests = wants_digests
        self._digest: hashlib._Hash | None = None
        self._target = target
        self._limits = limits
        self._subfolders: set[str] = set()
        self._bytes = 0
        self._fields = 0
        self._path: str | None = None
        self._field: tuple[str, bytearray] | None = None

    def prepare(self) -> None:
        """Make the destination of files usable."""
        self._target.prepare()

    def open_file(self, path: str) -> None:
        """Create a file. Raises ``TooLarge``, ``BadRequest``."""
        if len(self.form.files) >= self._limits.max_files:
            raise TooLarge(f"More than {self._limits.max_files} files")
        problem = collision(path, self.form.files.keys(), self._subfolders)
        if problem is not None:
            raise BadRequest(problem)
        added = [folder for folder in reversed(parents(path)) if folder not in self._subfolders]
        if len(self._subfolders) + len(added) > self._limits.max_folders:
            raise TooLarge(f"More than {self._limits.max_folders} folders")
        self._subfolders.update(added)
        self._target.open(path, added)
        self.form.files[path] = 0
        self._path = path
        self._digest = hashlib.sha256() if self._wants_digests(self.form.fields) else None

    def open_field(self, name: str) -> None:
        """Begin a field. Raises ``TooLarge``."""
        if self._fields >= MAX_FIELDS:
            raise TooLarge(f"More than {MAX_FIELDS} fields")
        self._fields += 1
        self._field = (name, bytearray())

    def write(self, data: memoryview) -> None:
        """Append to the open file or field. Raises ``TooLarge``."""
        if self._path is not None:
            self._bytes += len(data)
            if self._bytes > self._limits.max_bytes:
                raise FilesTooLarge(self._limits.max_bytes)
            self._target.write(data)
            self.form.files[self._path] += len(data)
            if self._digest is not None:
                self._digest.update(data)
        elif self._field is not None:
            name, value = self._field
            if len(value) + len(data) > MAX_FIELD_BYTES:
                raise TooLarge(f"Field {name!r} is larger than {MAX_FIELD_BYTES} bytes")
            value.extend(data)

    def close_part(self) -> None:
        """End the open file or field."""
        if self._path is not None:
            if self._digest is not None:
                self.form.digests[self._path] = self._digest.digest()
            self._path = None
            self._target.close()
        elif self._field is not None:
            name, value = self._field
            text = value.decode("utf-8", "replace")
            self.form.fields.setdefault(name, []).append(text)
            self._field = None

    def close(self) -> None:
        """Close a file that an error left open. Its content is discarded."""
        with contextlib.suppress(OSError):
            self._target.close()


class FilesInFolder:
    """A folder that files are written to. Implements ``FileTarget``. Blocks."""

    def __init__(self, folder: Path, *, write_behind: bool) -> None:
        self._folder = folder
        self._exists = False
        self._write_behind = write_behind
        self._file: int | None = None
        self._writeback: WriteBehind | None = None

    def prepare(self) -> None:
        """Create the folder at the first call."""
        if not self._exists:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._exists = True

    def open(self, path: str, added_folders: Sequence[str]) -> None:
        """Create a file and the folders that it needs."""
        # A descriptor, because data arrives in blocks already and a file object costs more calls;
        # strings, because there may be thousands of files.
        for folder in added_folders:
            os.mkdir(f"{self._folder}/{folder}")  # noqa: PTH102
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._file = os.open(f"{self._folder}/{path}", flags, 0o666)
        self._writeback = WriteBehind(self._file) if self._write_behind else None

    def write(self, data: memoryview) -> None:
        """Append to the open file."""
        if self._file is None:
            raise ValueError("no file is open")
        left = data
        while left:
            left = left[os.write(self._file, left) :]
        if self._writeback is not None:
            self._writeback.wrote(len(data))

    def close(self) -> None:
        """Close the open file."""
        if self._file is not None:
            file, self._file = self._file, None
            os.close(file)


class FilesInMemory:
    """Files in memory, at most ``max_bytes`` of them. Implements ``FileTarget``.

    Raises ``NotSmall`` as soon as there are more.
    """

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        self._files: list[tuple[str, bytearray]] = []

    def prepare(self) -> None:
        """Do nothing."""

    def open(self, path: str, added_folders: Sequence[str]) -> None:
        """Begin a file."""
        if len(self._files) == MAX_FILES:
            raise NotSmall
        self._files.append((path, bytearray()))

    def write(self, data: memoryview) -> None:
        """Append to the file."""
        self._left -= len(data)
        if self._left < 0:
            raise NotSmall
        self._files[-1][1].extend(data)

    def close(self) -> None:
        """Do nothing."""

    def content(self) -> Sequence[SmallFile]:
        """Return the files, sorted by path."""
        return [SmallFile(path, bytes(content)) for path, content in sorted(self._files)]
