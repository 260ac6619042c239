"""Start of ``jo``."""

import sys


def main() -> None:
    """Run ``jo``; say what is missing if it was installed without its extra."""
    from orchestrator_common.command.cli import jo

    try:
        jo(prog_name="jo")
    except ModuleNotFoundError as error:
        if error.name != "rich":
            raise
        sys.exit("jo needs rich. Install it: pip install 'orchestrator-common[cli]'")


if __name__ == "__main__":
    main()
