"""The command ``jo-client``."""

import logging
from functools import partial

import click
from aiohttp import web

from job_orchestrator.client import __version__, keys
from job_orchestrator.client.app import create_app, end_streams
from job_orchestrator.client.executors.local.capabilities import limit_capabilities_of_scripts
from job_orchestrator.client.executors.local.processes import become_unreadable
from job_orchestrator.client.registration.dialer import Destination, Dialer
from job_orchestrator.client.settings import SETTINGS, Settings, settings_of_process
from job_orchestrator.common.config.options import environment_help, setting_flags
from job_orchestrator.common.errors import StartupError
from job_orchestrator.common.logs.setup import configure_logging
from job_orchestrator.common.web.openapi import UI_PATH
from job_orchestrator.common.web.service import run_service

logger = logging.getLogger(__name__)

STOP_LIMIT_S = 60.0
"""Time for the stop, besides what running payloads have to end. No wait of it takes as long."""

EPILOG = f"""\
Only from the environment, because the command line of a process is visible to all users:

{environment_help(setting for setting in SETTINGS if setting.secret)}
"""


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EPILOG)
@click.version_option(__version__, prog_name="jo-client")
@setting_flags(SETTINGS)
@click.option("--server", metavar="URL", help="Short for --server-url")
def main(server: str | None, **flags: str | None) -> None:
    """Run the payloads that jo-server sends, and return their results.

    jo-client executes every script that it receives: make sure that only jo-server can reach it.

    Each option can also be set by the environment variable in brackets. A TIME is a number of
    seconds, or a number with s, m, h or d; a SIZE is a number of bytes, or a number with kB, MB or
    GB.
    """
    try:
        if server is not None:
            flags["SERVER_URL"] = server
        settings = settings_of_process(flags)
        become_unreadable()
        configure_logging(settings.log_level, settings.log_format)
        try:
            limit_capabilities_of_scripts()
        except OSError as error:
            logger.warning("Scripts keep all capabilities of jo-client: %s", error)
        app = create_app(settings)
        run_service(
            "jo-client",
            __version__,
            app,
            settings.host,
            settings.port,
            max_per_peer=settings.max_connections_per_peer,
            pages={"API (Swagger UI)": UI_PATH, "Metrics": "/metrics"},
            end_streams=partial(end_streams, app),
            drain=lambda: app[keys.DRAIN](),
            entrance=_entrance(settings, app),
            stop_limit_s=settings.drain_timeout_s + settings.kill_grace_s + STOP_LIMIT_S,
        )
    except StartupError as error:
        click.echo(f"jo-client: {error}", err=True)
        raise SystemExit(2) from error


class Tunnel:
    """Entrance through the tunnel of a ``Dialer``."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer

    @property
    def connections(self) -> int:
        """See ``Entrance.connections``."""
        return self._dialer.connections

    async def open(self, runner: web.AppRunner) -> None:
        """See ``Entrance.open``."""
        server = runner.server
        if server is None:
            raise RuntimeError("the application is not set up")
        await self._dialer.open(server)

    async def wait(self) -> None:
        """See ``Entrance.wait``."""
        await self._dialer.wait()

    async def close(self) -> None:
        """See ``Entrance.close``: streams of the server end with its requests."""

    async def leave(self) -> None:
        """See ``Entrance.leave``."""
        await self._dialer.leave()


def _entrance(settings: Settings, app: web.Application) -> Tunnel | None:
    """Return the way into a client that registers itself; None for one that listens on a port."""
    registration = settings.registration
    if registration.server_url is None:
        return None
    destination = Destination(
        registration.server_url,
        registration.server_token,
        registration.services,
        registration.name,
        settings.data_path,
    )

    async def is_idle() -> bool:
        store = app[keys.STORE]
        return not any(await store.counts()) and not await store.unseen_count()

    return Tunnel(
        Dialer(
            destination,
            is_idle,
            idle_exit_s=registration.idle_exit_s,
            lifetime_s=registration.lifetime_s,
        )
    )
