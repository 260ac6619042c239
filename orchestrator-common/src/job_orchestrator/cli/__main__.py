"""Start of ``jo``."""

import sys

from job_orchestrator.cli.interrupts import leave_when_interrupted


def main() -> None:
    """Run ``jo``; say what is missing if it was installed without its extra."""
    leave_when_interrupted()
    from job_orchestrator.cli.main import jo

    try:
        jo(prog_name="jo")
    except ModuleNotFoundError as error:
        if error.name != "rich":
            raise
        sys.exit("jo needs rich. Install it: pip install 'orchestrator-common[cli]'")


if __name__ == "__main__":
    main()
