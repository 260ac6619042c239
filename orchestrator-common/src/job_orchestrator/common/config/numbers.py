"""Numbers on command lines. click would say: 'abc' is not a valid integer range."""

import math
from typing import Any

import click


class Whole(click.IntRange):
    """A whole number; ``what`` it is, such as the number of a job, is told whoever gives none."""

    def __init__(self, what: str, minimum: int, maximum: int | None = None) -> None:
        super().__init__(minimum, maximum)
        self._what = what
        self._minimum = minimum

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read what was given."""
        try:
            number = int(value)
        except ValueError:
            number = None
        if number is None or not self._includes(number):
            self.fail(f"{value!r} is no {self._what}: {self._wanted()}.", param, ctx)
        return number

    def _includes(self, number: int) -> bool:
        return number >= self._minimum and (self.max is None or number <= self.max)

    def _wanted(self) -> str:
        if self.max is None:
            return f"it must be a whole number, {self.min} or more"
        return f"it must be a whole number from {self.min} to {self.max}"


class Seconds(click.FloatRange):
    """A time in seconds, 0 or more."""

    def __init__(self) -> None:
        super().__init__(0)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read what was given."""
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not seconds >= 0:
            self.fail(f"{value!r} is no time: it must be a number of seconds.", param, ctx)
        return seconds
