"""Arguments and options that several commands about jobs have."""

from pathlib import Path

import click

from job_orchestrator.cli.completion import complete_jobs
from job_orchestrator.cli.params import WholeNumber

JOB = WholeNumber("job id", 0)
array_option = click.option(
    "--array", "array_id", type=JOB, metavar="ARRAY", help="All tasks of this array."
)
job_id = click.argument("job_id", metavar="JOB", type=JOB, shell_complete=complete_jobs)
job_or_array = click.argument(
    "job_id", metavar="[JOB]", type=JOB, required=False, shell_complete=complete_jobs
)
target = click.option(
    "-o",
    "--output",
    metavar="OUT.zip|DIR",
    type=click.Path(path_type=Path),
    help="Write the results to a ZIP, or unpack them into a new folder.",
)


def one_of(job_id: int | None, array_id: int | None) -> int:
    """Return the id of the job; 0 if an array is given instead. Raises ``UsageError``."""
    if (job_id is None) == (array_id is None):
        raise click.UsageError("Give the id of a job, or --array and the id of an array.")
    return job_id or 0
