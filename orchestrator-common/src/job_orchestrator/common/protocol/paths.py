"""Rules for the paths of uploaded files.

Both services apply them, so a client does not depend on the checks of its server.
"""

import re
from collections.abc import Container

from job_orchestrator.common.errors import BadRequest

RESERVED = ".orchestrator"
"""The folder in a result ZIP for the files of the system: output of the script, manifest."""

MAX_PATH_BYTES = 1024
MAX_COMPONENT_BYTES = 255
"""NAME_MAX of every file system in use on Linux."""

_WINDOWS_ABSOLUTE = re.compile(r"[A-Za-z]:[\\/]|\\\\")
"""A drive (``C:\\``), or the name of a server (``\\\\host\\share``)."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class UnsafePath(BadRequest):
    """The name of an uploaded file is not a plain relative path."""


def uploaded_path(part_name: str, filename: str) -> str:
    """Return the checked path of an uploaded file, relative to the job's folder.

    The file name is the path, as in ``-F "file=@x;filename=a/x"``. Many HTTP libraries reduce a
    file name to its last component; therefore a part name whose last component equals the file
    name is the path instead (``a/x`` with the file name ``x``).

    Other libraries send the absolute path that the file has on the sender's machine. Such a name,
    of Linux or Windows, is cut to its last component, as RFC 7578 (4.2) recommends.

    Raises ``UnsafePath``.
    """
    part_name, filename = _without_absolute_folder(part_name), _without_absolute_folder(filename)
    if "/" not in filename and part_name.rpartition("/")[2] == filename:
        return check_path(part_name)
    return check_path(filename)


def _without_absolute_folder(name: str) -> str:
    """Return the last component of an absolute name, and any other name unchanged."""
    if name.startswith("/"):
        return name.rpartition("/")[2]
    if _WINDOWS_ABSOLUTE.match(name):
        return re.split(r"[\\/]", name)[-1]
    return name


def check_path(path: str) -> str:
    """Return ``path`` if it is a plain relative path; raise ``UnsafePath`` with the reason if not.

    Refused: empty and absolute paths, ``.`` and ``..`` and empty components, NUL and other control
    characters, backslashes (path separators when results are unpacked on Windows), names that are
    too long for file systems, and all paths below ``.orchestrator/``.
    """
    reason = _reason_against(path)
    if reason is not None:
        raise UnsafePath(
            f"Invalid file name {path[:100]!r}: {reason}. "
            "Use a plain relative path such as data/input.pdb"
        )
    return path


def _reason_against(path: str) -> str | None:
    if not path:
        return "it is empty"
    if _CONTROL.search(path):
        return "it holds a control character"
    if "\\" in path:
        return "it holds a backslash"
    if path.startswith("/"):
        return "it is absolute"
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    components = path.split("/")
    if not {"", ".", ".."}.isdisjoint(components):
        return "it has an empty, '.' or '..' component"
    if len(encoded) > MAX_PATH_BYTES:
        return f"it is longer than {MAX_PATH_BYTES} bytes"
    if any(len(component) > MAX_COMPONENT_BYTES for component in encoded.split(b"/")):
        return f"a component is longer than {MAX_COMPONENT_BYTES} bytes"
    if components[0] == RESERVED:
        return f"{RESERVED}/ is reserved"
    return None


def collision(path: str, taken: Container[str], folders: Container[str]) -> str | None:
    """Return why ``path`` conflicts with the files ``taken`` and their ``folders``, or None."""
    if path in taken:
        return f"Two files have the name {path!r}"
    if path in folders:
        return f"{path!r} is a file and a folder at once"
    for parent in parents(path):
        if parent in taken:
            return f"{parent!r} is a file and a folder at once"
    return None


def parents(path: str) -> list[str]:
    """Return the folders of a checked path, outermost last: ``a/b`` and ``a`` for ``a/b/c``."""
    found: list[str] = []
    while path := path.rpartition("/")[0]:
        found.append(path)
    return found
