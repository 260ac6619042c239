"""States of jobs on the command line, named as the API takes them."""

import click

from job_orchestrator.common.status import JobStatus

_BY_NAME = {status.value.lower(): status for status in JobStatus}


def states(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> frozenset[JobStatus]:
    """Read an option: states with commas between them, in any case, given any number of times."""
    names = [name.strip() for value in values for name in value.split(",") if name.strip()]
    unknown = [name for name in names if name.lower() not in _BY_NAME]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is no state; these are: {', '.join(JobStatus)}.")
    return frozenset(_BY_NAME[name.lower()] for name in names)


def complete_states(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Complete the last of the names, for the shell."""
    before, comma, begun = incomplete.rpartition(",")
    return [
        f"{before}{comma}{status}"
        for name, status in _BY_NAME.items()
        if name.startswith(begun.lower())
    ]
