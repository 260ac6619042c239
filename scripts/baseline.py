"""Install the services of another revision in an environment of their own; print its ``bin``.

The environment is kept in ``.baseline/<commit>``, so that the next run need not install it again.
"""

import fcntl
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
DISTRIBUTIONS = ("orchestrator-common", "orchestrator-server", "orchestrator-client")


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", "-C", ROOT, *arguments], check=True, stdout=-1).stdout  # noqa: S603, S607


@click.command()
@click.argument("revision")
def main(revision: str) -> None:
    """Install jo-server and jo-client of REVISION, and print the folder of the programs."""
    commit = _git("rev-parse", "--verify", f"{revision}^{{commit}}").decode().strip()
    environment = ROOT / ".baseline" / commit
    environment.parent.mkdir(exist_ok=True)
    # Tests of several processes need it at the same time: one installs it, the others wait.
    with (environment.parent / f"{commit}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (environment / "complete").exists():
            venv.create(environment, clear=True, with_pip=True)
            with tempfile.TemporaryDirectory() as folder:
                archive = _git("archive", commit)
                subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)  # noqa: S603, S607
                sources = [f"{folder}/{name}" for name in DISTRIBUTIONS]
                pip = [f"{environment}/bin/pip", "install", "--quiet", *sources]
                # What pip prints is no part of this program's output.
                subprocess.run(pip, check=True, stdout=sys.stderr)  # noqa: S603
            (environment / "complete").touch()
    click.echo(environment / "bin")


if __name__ == "__main__":
    main()
