"""The command group ``jo``, which loads a command only when it is used.

The modules that speak to a server take longer to load than most calls take. ``jo --help`` and the
shell's completion, which only list the commands, work without them.
"""

import gc
from importlib import import_module
from typing import Any

import click

from job_orchestrator.common import __version__


class LazyCommand(click.Command):
    """Stand-in for the command ``attribute`` of ``module``.

    ``summary`` is its line in ``jo --help``, the first sentence of the command's own help.
    """

    def __init__(self, name: str, module: str, attribute: str, summary: str) -> None:
        super().__init__(name, short_help=summary)
        self._module = module
        self._attribute = attribute

    def load(self) -> click.Command:
        """Import the command."""
        # Imports create no garbage: looking for some would take a sixth of the time.
        gc.disable()
        try:
            found: click.Command = getattr(import_module(self._module), self._attribute)
        finally:
            gc.enable()
        return found

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Parse ``args`` with the loaded command, which then takes the place of this object."""
        return self.load().make_context(info_name, args, parent, **extra)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="jo")
@click.option("--url", metavar="URL", help="URL of jo-server.")
@click.option("--token", metavar="TOKEN", help="Token for the server.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def jo(**_: object) -> None:
    """Submit jobs to jo-server, watch them, and download their results.

    Options that all commands have may also be given before the command.

    Environment: JO_URL is the URL of the server (default http://localhost:5000), JO_TOKEN the token
    for it.

    Exit status: 0 success, the job's own after a wait, 2 wrong usage, 65 refused, 66 no such job,
    69 server unreachable, 75 over a quota, 77 no permission, 124 time-out, 126 script refused, 130
    interrupted, 137 job cancelled, 1 any other failure.
    """


for name, location, summary in (
    ("submit", "jobs.submit", "Submit a job: a folder with a run.sh, or run.sh and other files."),
    ("status", "jobs.status", "Show a job: its state, the reason, its queue position."),
    ("wait", "jobs.wait", "Wait until a job has ended."),
    (
        "logs",
        "jobs.logs",
        "Print the output of a job: standard output and standard error, each to its own.",
    ),
    ("download", "jobs.download", "Download the results of a job, or the output of a failed one."),
    ("files", "files.files", "List the files in the results of a job, with their sizes."),
    ("cat", "files.cat", "Print one file of a job's results, byte by byte."),
    ("cancel", "jobs.cancel", "Cancel jobs."),
    ("explain", "queue.explain", "Say why a job waits, and when it is expected to start."),
    ("hold", "queue.hold", "Hold queued jobs: they don't start before they are released."),
    ("release", "queue.release", "Release jobs that are on hold."),
    ("priority", "queue.priority", "Change the priority of a queued job."),
    ("pause", "queue.pause", "Start no more jobs of a service or a user."),
    (
        "resume",
        "queue.resume",
        "Start the jobs of a paused service, user or drained client again.",
    ),
    ("drain", "queue.drain", "Give a client no more jobs."),
    ("forget", "queue.forget", "Forget a client that has registered itself and has no jobs."),
    ("list", "lists.list_jobs", "List jobs, newest first."),
    ("services", "lists.services", "List the services: limits, use, queue, problems."),
    ("clients", "lists.clients", "List the compute clients: state, slots, load, versions."),
    ("top", "top.top", "Show services, clients and jobs, live."),
    ("doctor", "doctor.doctor", "Check the set-up: server, clients, versions, clocks, disk."),
    (
        "completion",
        "completion.completion",
        "Print the script that completes jo in a shell: bash, zsh or fish.",
    ),
):
    module, _, attribute = location.partition(".")
    jo.add_command(LazyCommand(name, f"job_orchestrator.cli.commands.{module}", attribute, summary))
