"""Floor for many files: the time to copy a folder."""

import shutil
import subprocess
import time
from pathlib import Path


def make(folder: Path, contents: dict[str, bytes]) -> None:
    """Write files given by relative path."""
    for path, content in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def copy_s(folder: Path, *, flushed: bool) -> float:
    """Measure ``cp -r``, with ``flushed`` including the flush to disk. The copy is removed."""
    copy = folder.with_name(f"{folder.name}-copy")
    begun = time.perf_counter()
    subprocess.run(["cp", "-r", folder, copy], check=True)  # noqa: S607
    if flushed:
        subprocess.run(["sync", "-f", copy], check=True)  # noqa: S607
    seconds = time.perf_counter() - begun
    shutil.rmtree(copy)
    return seconds
