"""``python -m orchestrator_client`` is jo-client."""

from orchestrator_client.cli import main

main(prog_name="jo-client")
