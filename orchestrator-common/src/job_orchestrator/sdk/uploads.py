"""Uploads: the files of a job, and the body of the request that sends them."""

import os
import stat
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from io import SEEK_END
from pathlib import Path

from job_orchestrator.common.errors import BadRequest
from job_orchestrator.common.protocol.multipart_writer import FormBody, FormFile, Readable
from job_orchestrator.common.protocol.paths import check_path, collision, parents
from job_orchestrator.sdk.errors import UnusableFiles

Source = str | os.PathLike[str] | bytes | Readable
"""A file to send: its path on this machine, its content, or an open binary file.

An open file must be able to seek. It is sent from its current position, and stays open."""

Files = str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | Mapping[str, Source]
"""The files of a job.

A single folder is the job's folder. Several paths are copied into the job's folder as ``cp -r``
would: files under their own name, folders with their content. A mapping gives the name of each
file in the job's folder, such as ``data/input.txt``, and its source."""

Progress = Callable[[int, int | None], None]
"""Called with the bytes transferred and their total, None if unknown. A retry starts at 0 again."""

SCRIPT = "run.sh"


def form_fields(
    fields: Mapping[str, object], **repeated: Iterable[object]
) -> list[tuple[str, str]]:
    """Return the fields of a form, without those that are None."""
    given = [(name, str(value)) for name, value in fields.items() if value is not None]
    return given + [(name, str(value)) for name, values in repeated.items() for value in values]


def collect(files: Files) -> list[FormFile]:
    """List the files to send, checked by the rules of the server.

    Links are followed, empty folders are left out. Blocks: call it in a thread. Raises
    ``UnusableFiles``.
    """
    found: list[FormFile] = []
    taken: set[str] = set()
    folders: set[str] = set()
    try:
        for file in _each(files):
            problem = collision(check_path(file.path), taken, folders)
            if problem is not None:
                raise UnusableFiles(f"{problem}; rename one of them")
            taken.add(file.path)
            folders.update(parents(file.path))
            found.append(file)
    except BadRequest as error:
        raise UnusableFiles(str(error)) from error
    except OSError as error:
        raise UnusableFiles(
            f"{error.filename or 'A file'} can't be read: {error.strerror}"
        ) from error
    if SCRIPT not in taken:
        found_names = ", ".join(sorted(taken)[:5]) or "nothing"
        raise UnusableFiles(
            f"There is no {SCRIPT} at the top of the job's files (found: {found_names}); "
            "the service runs this script"
        )
    return found


def _each(files: Files) -> Iterator[FormFile]:
    if isinstance(files, Mapping):
        for name, source in files.items():
            yield _named(name, source)
        return
    paths = [files] if isinstance(files, str | os.PathLike) else list(files)
    if len(paths) == 1 and Path(paths[0]).is_dir():
        yield from _below(Path(paths[0]), "", ())
        return
    for path in map(Path, paths):
        # "." and ".." name a folder only after they are resolved.
        name = path.name if path.name not in ("", "..") else path.resolve().name
        yield from _below(path, f"{name}/", ()) if path.is_dir() else (_on_disk(name, path),)


def _named(name: str, source: Source) -> FormFile:
    if isinstance(source, bytes):
        return FormFile(name, source, len(source))
    if isinstance(source, str | os.PathLike):
        return _on_disk(name, Path(source))
    try:
        start = source.tell()
        size = source.seek(0, SEEK_END) - start
        source.seek(start)
    except (OSError, ValueError, AttributeError) as error:
        raise UnusableFiles(f"{name}: an open file must be able to seek ({error})") from error
    return FormFile(name, source, size, start)


def _on_disk(name: str, path: Path) -> FormFile:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UnusableFiles(f"{path} is not a regular file; leave it out")
    if not os.access(path, os.R_OK):
        raise UnusableFiles(f"{path} can't be read; change its permissions or leave it out")
    return FormFile(name, path, status.st_size)


def _below(folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[FormFile]:
    """Yield all files below ``folder``, sorted by name.

    ``above`` holds device and inode of the folders that contain ``folder``.
    """
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise UnusableFiles(f"{folder} is a link to a folder that contains it; remove the link")
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _below(path, f"{prefix}{path.name}/", (*above, here))
        else:
            yield _on_disk(f"{prefix}{path.name}", path)


class Upload:
    """Body of a submit, which reports its progress."""

    def __init__(
        self,
        files: list[FormFile],
        fields: Iterable[tuple[str, str]],
        progress: Progress | None,
    ) -> None:
        self._form = FormBody(files, fields)
        self._progress = progress
        self.headers = self._form.headers
        self.failure: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the blocks. An error on this side of the connection is kept in ``failure``."""
        self.failure = None
        total, done = int(self.headers["Content-Length"]), 0
        try:
            if self._progress is not None:
                self._progress(0, total)
            async for block in self._form:
                yield block
                done += len(block)
                if self._progress is not None:
                    self._progress(done, total)
        except OSError as error:
            self.failure = UnusableFiles(f"The upload failed: {error}")
            raise
        except Exception as error:
            self.failure = error
            raise
