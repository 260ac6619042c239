"""The command ``jo``."""

import click

from job_orchestrator.cli.lazy_command import Later
from job_orchestrator.common import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="jo")
@click.option("--url", metavar="URL", help="Where jo-server is.")
@click.option("--token", metavar="TOKEN", help="Token for the server.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def jo(**_: object) -> None:
    """Submit jobs to jo-server, watch them, and fetch their results.

    Options that all commands have may stand before the command, too.

    The server is at JO_URL (http://localhost:5000); JO_TOKEN is the token for it. Exit status: 0
    success, the job's own where one was waited for, 2 wrong usage, 65 refused, 66 no such job,
    69 server unreachable, 75 over a quota, 77 no permission, 124 time-out, 126 script refused,
    130 interrupted, 137 job cancelled, 1 anything else.
    """


for name, where, summary in (
    ("submit", "jobs.submit", "Submit a job: a folder with a run.sh, or run.sh and other files."),
    ("status", "jobs.status", "Show a job: its state and why, its place in the queue."),
    ("wait", "jobs.wait", "Wait for the end of a job."),
    ("logs", "jobs.logs", "Print what a job has printed."),
    ("download", "jobs.download", "Fetch the results of a job, or what a failed one has left."),
    ("cancel", "jobs.cancel", "End jobs."),
    ("list", "listing.list_jobs", "List jobs, the newest first."),
    ("services", "service_state.services", "List the services: limits, use, queue, problems."),
    ("clients", "service_state.clients", "List the compute clients: state, slots, load, versions."),
    ("top", "top.top", "Show services, clients and jobs, live."),
    ("doctor", "doctor.doctor", "Check the set-up: server, clients, versions, clocks, disk."),
):
    module, _, attribute = where.partition(".")
    jo.add_command(Later(name, f"job_orchestrator.cli.{module}", attribute, summary))
