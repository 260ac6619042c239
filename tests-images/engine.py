"""Commands of a container engine."""

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 300


@dataclass(frozen=True)
class Engine:
    """Runs the engine's commands."""

    environment: dict[str, str]

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command from the repository root; its output."""
        # To a file, not a pipe: a container's monitor would keep the pipe open for its own life.
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
            said = output.read()
        assert done.returncode == 0 or not check, f"{command}:\n{said}"
        return said

    def inside(self, container: str, *command: str) -> str:
        """Run a command in a container; its output."""
        return self.run("podman", "exec", container, *command).strip()
