"""The command jo-server."""

import click

from job_orchestrator.common.config.reader import with_flags
from job_orchestrator.common.errors import StartupError
from job_orchestrator.common.logs.setup import configure_logging
from job_orchestrator.common.web.listener import allow_open_files
from job_orchestrator.common.web.openapi import UI_PATH
from job_orchestrator.common.web.service import run_service
from job_orchestrator.server import __version__
from job_orchestrator.server.app import create_app
from job_orchestrator.server.cli.maintenance import backup, check, restore
from job_orchestrator.server.cli.tokens import token
from job_orchestrator.server.settings.server import OPTIONS, settings_of_process


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="jo-server")
@with_flags(OPTIONS)
@click.pass_context
def main(context: click.Context, /, **flags: str | None) -> None:
    """Queue jobs, keep quotas, hand jobs to jo-clients and serve their results.

    Without a command it serves. Services are set in the environment: SERVICE_<NAME>_UPLOAD_URL and
    SERVICE_<NAME>_DOWNLOAD_URL (several clients: comma-separated), and optionally _TERMINATE_URL,
    _RUNS_PER_USER, _MAX_RUNS, _MAX_ATTEMPTS, _TIME_LIMIT. Times take s, m, h or d; sizes kB, MB
    or GB.
    """
    context.obj = flags
    if context.invoked_subcommand is not None:
        return
    try:
        settings = settings_of_process(flags)
        configure_logging(settings.log_level, settings.log_format)
        allow_open_files()
        run_service(
            "jo-server",
            __version__,
            create_app(settings),
            settings.host,
            settings.port,
            max_per_peer=settings.max_connections_per_peer,
            pages={"Dashboard": "/dashboard/", "API (Swagger UI)": UI_PATH, "Metrics": "/metrics"},
        )
    except StartupError as error:
        click.echo(f"jo-server: {error}", err=True)
        raise SystemExit(2) from error


for command in (backup, restore, check, token):
    main.add_command(command)
