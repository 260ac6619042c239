"""Commands of a container engine."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 600


@dataclass(frozen=True)
class Engine:
    """Runs the engine's commands."""

    environment: dict[str, str]

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command from the repository root; its output."""
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{command}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def inside(self, container: str, *command: str) -> str:
        """Run a command in a container; its output."""
        return self.run("podman", "exec", container, *command).strip()
