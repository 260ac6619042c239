"""The command ``jo``."""

import click

from orchestrator_common import __version__
from orchestrator_common.command import jobs, service_state
from orchestrator_common.command.doctor import doctor


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="jo")
def jo() -> None:
    """Submit jobs to jo-server, watch them, and fetch their results.

    The server is at JO_URL (http://localhost:5000); JO_TOKEN is the token for it. Exit status: 0
    success, the job's own where one was waited for, 2 wrong usage, 65 refused, 66 no such job,
    69 server unreachable, 75 over a quota, 77 no permission, 124 time-out, 126 script refused,
    130 interrupted, 137 job cancelled, 1 anything else.
    """


for each in (
    jobs.submit,
    jobs.status,
    jobs.wait,
    jobs.logs,
    jobs.download,
    jobs.cancel,
    jobs.list_jobs,
    service_state.services,
    service_state.clients,
    service_state.top,
    doctor,
):
    jo.add_command(each)
