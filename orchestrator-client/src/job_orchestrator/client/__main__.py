"""``python -m job_orchestrator.client`` is jo-client."""

from job_orchestrator.client.cli import main

main(prog_name="jo-client")
