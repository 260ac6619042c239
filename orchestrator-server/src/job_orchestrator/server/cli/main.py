"""The command ``jo-server``."""

from functools import partial

import click

from job_orchestrator.common.config.options import environment_help, setting_flags
from job_orchestrator.common.errors import StartupError
from job_orchestrator.common.logs.setup import configure_logging
from job_orchestrator.common.web.listener import allow_open_files
from job_orchestrator.common.web.openapi import UI_PATH
from job_orchestrator.common.web.service import run_service
from job_orchestrator.server import __version__
from job_orchestrator.server.app import create_app, end_streams
from job_orchestrator.server.cli.importing import import_original
from job_orchestrator.server.cli.maintenance import backup, check, export, restore
from job_orchestrator.server.cli.simulate import simulate
from job_orchestrator.server.cli.tokens import token
from job_orchestrator.server.settings.server import SETTINGS, settings_of_process
from job_orchestrator.server.settings.services import PREFIX, SERVICE_SETTINGS

EPILOG = f"""\
Only from the environment, because the command line of a process is visible to all users:

{environment_help(setting for setting in SETTINGS if setting.secret)}

For each service, also from the environment; <NAME> is the name of the service:

{environment_help(SERVICE_SETTINGS, f"{PREFIX}<NAME>_")}
"""


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EPILOG,
)
@click.version_option(__version__, prog_name="jo-server")
@setting_flags(SETTINGS)
@click.pass_context
def main(context: click.Context, /, **flags: str | None) -> None:
    """Queue the jobs of web portals, run them on jo-clients, and serve their results.

    Without a command, jo-server starts the service. Each option can also be set by the environment
    variable in brackets. A TIME is a number of seconds, or a number with s, m, h or d; a SIZE is a
    number of bytes, or a number with kB, MB or GB.
    """
    context.obj = flags
    if context.invoked_subcommand is not None:
        return
    try:
        settings = settings_of_process(flags)
        configure_logging(settings.log_level, settings.log_format)
        allow_open_files()
        app = create_app(settings)
        run_service(
            "jo-server",
            __version__,
            app,
            settings.host,
            settings.port,
            max_per_peer=settings.max_connections_per_peer,
            pages={"Dashboard": "/dashboard/", "API (Swagger UI)": UI_PATH, "Metrics": "/metrics"},
            end_streams=partial(end_streams, app),
        )
    except StartupError as error:
        click.echo(f"jo-server: {error}", err=True)
        raise SystemExit(2) from error


for command in (backup, restore, check, export, import_original, simulate, token):
    main.add_command(command)
