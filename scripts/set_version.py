"""Sets the version of the three distributions, and of their requirements on each other.

    .venv/bin/python scripts/set_version.py 1.2.0

The version of a distribution is ``__version__`` of its import package, from which its metadata and
``--version`` are derived. jo-server and jo-client require the common distribution with ``==``.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
DISTRIBUTIONS = ("common", "server", "client")

_VERSION = re.compile(r"\d+\.\d+\.\d+((a|b|rc)\d+)?")
_ASSIGNMENT = re.compile(r'^(__version__ = ")[^"]+(")$', re.MULTILINE)
_REQUIREMENT = re.compile(r'^(\s*"job-orchestrator-common(?:\[\w+\])?==)[^"]+(",)$', re.MULTILINE)


def set_version(version: str, root: Path = ROOT) -> list[Path]:
    """Write ``version`` into the files below ``root``; return their paths.

    Raises ``ValueError`` if it is not a version, or if a file has no place for it.
    """
    if not _VERSION.fullmatch(version):
        raise ValueError(f"{version!r} is not a version; it must be like 1.2.0 or 1.2.0rc1")
    changed = []
    for name in DISTRIBUTIONS:
        folder = root / f"orchestrator-{name}"
        changed.append(folder / "src" / "job_orchestrator" / name / "__init__.py")
        _replace(changed[-1], _ASSIGNMENT, version)
        if name != "common":
            changed.append(folder / "pyproject.toml")
            _replace(changed[-1], _REQUIREMENT, version)
    return changed


def _replace(path: Path, place: re.Pattern[str], version: str) -> None:
    text, count = place.subn(rf"\g<1>{version}\g<2>", path.read_text())
    if count != 1:
        raise ValueError(f"{path} has {count} places for the version; it must have one")
    path.write_text(text)


def main(arguments: list[str]) -> int:
    """Set the version that is the only argument; return the exit status."""
    if len(arguments) != 1:
        sys.stderr.write("usage: set_version.py VERSION\n")
        return 2
    try:
        for path in set_version(arguments[0]):
            sys.stdout.write(f"{path.relative_to(ROOT)}\n")
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
