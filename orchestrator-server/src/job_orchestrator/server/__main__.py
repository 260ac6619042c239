"""``python -m job_orchestrator.server`` is jo-server."""

from job_orchestrator.server.cli.main import main

main(prog_name="jo-server")
