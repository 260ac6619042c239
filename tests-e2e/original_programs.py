"""Real servers and clients of the original, from the binary that ORIGINAL_BINARY names."""

import asyncio
import os
import socket
from pathlib import Path

from harness import Service, eventually

VARIABLE = "ORIGINAL_BINARY"
RELEASE = "2.2.3"

# Its log is a file: scripts inherit it, and those that outlive their client would keep a pipe open.
PROGRAM = """#!/bin/sh
echo "listening on http://127.0.0.1:$PORT" >&2
exec "{binary}" {role} >> log 2>&1
"""

TRAP = "#!/bin/bash\ntrap 'echo $? > .orchestrator.exit' EXIT\n"
"""Begin of each script: without it, the original never learns that a script has ended."""


def binary() -> Path | None:
    """Return the binary of the original, if there is one."""
    path = os.environ.get(VARIABLE)
    return Path(path) if path else None


class OriginalService(Service):
    """A server or a client of the original. ``name`` is ``server`` or ``client``."""

    def __init__(self, name: str, folder: Path, settings: dict[str, str]) -> None:
        super().__init__(name, folder, {"PORT": str(_free_port()), **settings}, programs=folder)
        (folder / "data").mkdir()
        program = folder / name
        program.write_text(PROGRAM.format(binary=binary(), role=name))
        program.chmod(0o755)

    async def start(self) -> "OriginalService":
        """Start the process. A restart uses the same port and folders."""
        await super().start()
        await eventually(self._listens)
        return self

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", int(self.settings["PORT"]))
        except ConnectionRefusedError:
            return False
        writer.close()
        return True


def _free_port() -> int:
    """Return a port that was free a moment ago: the original does not say which it has chosen."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
