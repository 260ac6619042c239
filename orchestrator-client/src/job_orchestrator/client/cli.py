"""The command jo-client."""

import click

from job_orchestrator.client import __version__, keys
from job_orchestrator.client.app import create_app
from job_orchestrator.client.executors.local.processes import become_unreadable
from job_orchestrator.client.settings import OPTIONS, settings_of_process
from job_orchestrator.common.config.reader import with_flags
from job_orchestrator.common.errors import StartupError
from job_orchestrator.common.logs.setup import configure_logging
from job_orchestrator.common.web.openapi import UI_PATH
from job_orchestrator.common.web.service import run_service


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="jo-client")
@with_flags(OPTIONS)
def main(**flags: str | None) -> None:
    """Run the payloads that jo-server hands over, and give their results back.

    Only jo-server may be able to reach it: it executes what it is sent. Times take s, m, h or d;
    sizes kB, MB or GB.
    """
    try:
        settings = settings_of_process(flags)
        become_unreadable()
        configure_logging(settings.log_level, settings.log_format)
        app = create_app(settings)
        run_service(
            "jo-client",
            __version__,
            app,
            settings.host,
            settings.port,
            max_per_peer=settings.max_connections_per_peer,
            pages={"API (Swagger UI)": UI_PATH, "Metrics": "/metrics"},
            drain=lambda: app[keys.DRAIN](),
        )
    except StartupError as error:
        click.echo(f"jo-client: {error}", err=True)
        raise SystemExit(2) from error
