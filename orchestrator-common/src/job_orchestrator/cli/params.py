"""Types and callbacks of command-line parameters, with messages that name what is expected."""

from typing import Any

import click

from job_orchestrator.common.protocol.durations import parse_duration_s
from job_orchestrator.common.protocol.selection import problem_of
from job_orchestrator.sdk import JobStatus

_STATES = {status.value.lower(): status for status in JobStatus}


class WholeNumber(click.IntRange):
    """A whole number within bounds. ``what`` names the value in messages, such as "job id".

    The message of click would be: 'abc' is not a valid integer range.
    """

    def __init__(self, what: str, minimum: int, maximum: int | None = None) -> None:
        super().__init__(minimum, maximum)
        self._what = what
        self._minimum = minimum

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse ``value``; fail with a usage error if it is not a whole number in range."""
        try:
            number = int(value)
        except ValueError:
            number = None
        if number is None or not self._includes(number):
            self.fail(f"{value!r} is not a {self._what}: {self._expected()}.", param, ctx)
        return number

    def _includes(self, number: int) -> bool:
        return number >= self._minimum and (self.max is None or number <= self.max)

    def _expected(self) -> str:
        if self.max is None:
            return f"it must be a whole number, {self.min} or more"
        return f"it must be a whole number from {self.min} to {self.max}"


class Seconds(click.FloatRange):
    """A time in seconds, or with a unit: ``90``, ``30m``."""

    def __init__(self) -> None:
        super().__init__(0)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds that ``value`` stands for."""
        seconds = parse_duration_s(str(value))
        if seconds is None:
            self.fail(
                f"{value!r} is not a time: it must be a number of seconds,"
                " or a number with s, m, h or d, such as 30m.",
                param,
                ctx,
            )
        return seconds


def check_patterns(
    _: click.Context, __: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    """Check the patterns of results before anything is sent."""
    if problem := problem_of(values):
        raise click.BadParameter(f"{problem}.")
    return values


def parse_job_ids(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Read ids of jobs, separated by commas."""
    words = [word.strip() for word in value.split(",")] if value is not None else []
    if not all(word.isascii() and word.isdigit() for word in words):
        raise click.BadParameter(f"{value!r} is not a list of job ids, such as 12,13.")
    return tuple(map(int, words))


def parse_states(
    _: click.Context, __: click.Parameter, values: tuple[str, ...]
) -> frozenset[JobStatus]:
    """Read states from an option that may be repeated: comma-separated, in any case."""
    names = [name.strip() for value in values for name in value.split(",") if name.strip()]
    unknown = [name for name in names if name.lower() not in _STATES]
    if unknown:
        raise click.BadParameter(
            f"{unknown[0]!r} is not a state; the states are: {', '.join(JobStatus)}."
        )
    return frozenset(_STATES[name.lower()] for name in names)


def complete_states(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Complete the last of comma-separated states, for the shell."""
    before, comma, begun = incomplete.rpartition(",")
    return [
        f"{before}{comma}{status}"
        for name, status in _STATES.items()
        if name.startswith(begun.lower())
    ]
