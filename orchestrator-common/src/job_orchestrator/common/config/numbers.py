"""Numbers on command lines. click would say: 'abc' is not a valid integer range."""

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
