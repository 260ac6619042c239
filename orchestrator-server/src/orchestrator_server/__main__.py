"""``python -m orchestrator_server`` is jo-server."""

from orchestrator_server.cli import main

main(prog_name="jo-server")
