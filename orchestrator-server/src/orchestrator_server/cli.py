"""The command jo-server."""

import click

from orchestrator_common.env import with_flags
from orchestrator_common.errors import StartupError
from orchestrator_common.logs import configure_logging
from orchestrator_common.web.listener import allow_open_files
from orchestrator_common.web.openapi import UI_PATH
from orchestrator_common.web.service import run_service
from orchestrator_server import __version__
from orchestrator_server.app import create_app
from orchestrator_server.maintenance_command import backup, check, restore
from orchestrator_server.settings import OPTIONS, settings_of_process
from orchestrator_server.token_command import token


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
