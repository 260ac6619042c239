"""Tasks of arrays: which task of which array a payload is, in its form and in its environment."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

ID, INDEX, SIZE = "array_id", "array_index", "array_size"
"""Fields of the form that a client gets with a task."""

MAX_INDEX = 2**31 - 1
"""Largest index of a task."""

_VARIABLES = {ID: "JO_ARRAY_ID", INDEX: "JO_ARRAY_INDEX", SIZE: "JO_ARRAY_SIZE"}


@dataclass(frozen=True)
class ArrayTask:
    """A task of an array: the id of the array, the index of the task, the number of all tasks."""

    array_id: int
    index: int
    size: int

    def fields(self) -> list[tuple[str, str]]:
        """Return the form fields."""
        return [(name, str(value)) for name, value in zip(_VARIABLES, astuple(self), strict=True)]

    def variables(self) -> dict[str, str]:
        """Return the variables by which run.sh learns which task it is."""
        return {
            name: str(value) for name, value in zip(_VARIABLES.values(), astuple(self), strict=True)
        }


def array_task_of(fields: Mapping[str, Sequence[str]]) -> ArrayTask | None:
    """Read the form fields of a task; None if there are none. Raises ``ValueError``."""
    if not fields.keys() & _VARIABLES.keys():
        return None
    found = ArrayTask(*(int(fields.get(name, [""])[-1]) for name in _VARIABLES))
    if not (0 < found.array_id < 2**63 and 0 <= found.index <= MAX_INDEX):
        raise ValueError("ids and indexes are numbers")
    if not 0 < found.size <= MAX_INDEX:
        raise ValueError("an array has tasks")
    return found
