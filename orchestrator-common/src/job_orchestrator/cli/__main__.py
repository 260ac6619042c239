"""Entry point of ``jo``."""

import sys

from job_orchestrator.cli.interrupts import exit_on_interrupt

DEPENDENCIES = frozenset({"click", "rich"})
"""Packages of the extra ``[cli]``."""


def main() -> None:
    """Run ``jo``. Without its extra ``[cli]``, say how to install it."""
    exit_on_interrupt()
    try:
        from job_orchestrator.cli.main import jo

        jo(prog_name="jo")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in DEPENDENCIES:
            raise
        sys.exit(
            f"jo needs {missing}, which is not installed. Install it with: "
            "pip install 'job-orchestrator-common[cli]'"
        )


if __name__ == "__main__":
    main()
