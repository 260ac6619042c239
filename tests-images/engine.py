"""Commands of the container engine."""

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 300


@dataclass(frozen=True)
class Engine:
    """Runs commands with the environment of the engine."""

    environment: dict[str, str]

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command in the root of the repository; return its output."""
        # A file, because the monitor of a container would keep a pipe open as long as it runs.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if check else subprocess.DEVNULL,
                timeout=TIMEOUT_S,
                check=False,
            )
            output.seek(0)
            text = output.read()
        assert done.returncode == 0 or not check, f"{command}:\n{text}"
        return text

    def inside(self, container: str, *command: str) -> str:
        """Run a command in a container; return its output."""
        return self.run("podman", "exec", container, *command).strip()
