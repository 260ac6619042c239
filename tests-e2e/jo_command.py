"""Runs the command jo as a script does."""

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import BIN

TIMEOUT_S = 120
SUBMIT = ("submit", "--service", "example", "--user", "1")


@dataclass
class Run:
    """Exit status and output of a run of jo."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, decoded from JSON."""
        return json.loads(self.out)


class Jo:
    """Command jo in ``folder``, with the URL of a server in its environment."""

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        inherited = {k: v for k, v in os.environ.items() if k.startswith("COV")}
        self.env = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "JO_URL": url,
            **inherited,
        }

    async def start(self, *args: str, **options: Any) -> asyncio.subprocess.Process:
        """Start jo."""
        return await asyncio.create_subprocess_exec(
            BIN / "jo",
            *args,
            cwd=self.folder,
            env=self.env,
            **{
                "stdin": asyncio.subprocess.DEVNULL,
                "stdout": asyncio.subprocess.PIPE,
                "stderr": asyncio.subprocess.PIPE,
                **options,
            },
        )

    async def __call__(self, *args: str) -> Run:
        """Run jo until it has ended."""
        process = await self.start(*args)
        out, err = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
        assert process.returncode is not None
        assert b"Traceback" not in err, err.decode()
        return Run(process.returncode, out.decode(), err.decode())


def write(jo: Jo, script: str, name: str = "run.sh") -> None:
    """Write a script into the folder of ``jo``."""
    path = jo.folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(script)


def read_until(terminal: int, text: bytes) -> bytes:
    """Return the output of a terminal up to ``text``."""
    found = b""
    while text not in found:
        found += os.read(terminal, 1 << 16)
    return found


def read_all(terminal: int) -> str:
    """Return the output of a terminal until its last writer has closed it."""
    found = b""
    try:
        while block := os.read(terminal, 1 << 16):
            found += block
    except OSError:  # EIO: how Linux reports it
        pass
    finally:
        os.close(terminal)
    return found.decode(errors="replace")
