"""Selection of results: the form fields ``outputs`` and ``results``, and what they select. No I/O.

Both services read the fields, so a client does not depend on the checks of its server.
"""

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from job_orchestrator.common.errors import BadRequest

OUTPUTS = "outputs"
RESULTS = "results"

MAX_PATTERNS = 50
MAX_PATTERN_LENGTH = 300
MAX_PATTERN_COMPONENTS = 20
"""Components of a pattern. The time to match a path grows with them, in the worst case."""

_ANY_FOLDERS = "**"
_SET = re.compile(r"\[!?+\]?+[^]]*\]")
"""A set of characters in a pattern. A bracket as its first one does not close it."""


class ResultKind(StrEnum):
    """Files of a job's folder that its results may have: all, or those that are not uploaded."""

    ALL = "all"
    NEW = "new"


@dataclass(frozen=True)
class Selection:
    """Selection of the files that the results of a job have.

    ``outputs`` are glob patterns; a file must match one of them, unless there are none. ``kind``
    NEW leaves out every uploaded file whose content is still the uploaded one.
    """

    outputs: tuple[str, ...] = ()
    kind: ResultKind = ResultKind.ALL

    def fields(self) -> list[tuple[str, str]]:
        """Return the form fields; none for a selection of all files, as old clients expect."""
        kind = [(RESULTS, self.kind.value)] if self.kind is not ResultKind.ALL else []
        return [*((OUTPUTS, pattern) for pattern in self.outputs), *kind]


EVERYTHING = Selection()
"""The selection of a job that selects nothing."""


def read_selection(fields: Mapping[str, Sequence[str]]) -> Selection:
    """Read the selection from the values of each form field. Raises ``BadRequest``.

    An empty pattern is refused: a variable that is not set must not select everything.
    """
    if OUTPUTS not in fields and RESULTS not in fields:
        return EVERYTHING
    texts = [text.strip() for text in fields.get(OUTPUTS, ())]
    patterns = dict.fromkeys(_checked_pattern(text) for text in texts)
    if len(patterns) > MAX_PATTERNS:
        raise BadRequest(f"Invalid outputs, there may be at most {MAX_PATTERNS} patterns")
    kind = [text.strip().lower() for text in fields.get(RESULTS, ())][-1:] or [""]
    try:
        return Selection(tuple(patterns), ResultKind(kind[0] or ResultKind.ALL))
    except ValueError:
        raise BadRequest("Invalid results, should be all or new") from None


def _checked_pattern(text: str) -> str:
    """Return a pattern without ``.`` components and without a slash at its end."""
    reason = None
    components = _without_repeats(part for part in text.rstrip("/").split("/") if part != ".")
    if not text:
        reason = "it is empty"
    elif len(text) > MAX_PATTERN_LENGTH:
        reason = f"it is longer than {MAX_PATTERN_LENGTH} characters"
    elif len(components) > MAX_PATTERN_COMPONENTS:
        reason = f"it has more than {MAX_PATTERN_COMPONENTS} components"
    elif not text.isprintable():
        reason = "it holds a control character"
    elif text.startswith("/"):
        reason = "it is absolute"
    elif not components or "" in components or ".." in components:
        reason = "it has an empty or '..' component"
    elif any(_has_open_bracket(part) for part in components):
        reason = "a '[' has no ']' ([[] stands for the character itself)"
    if reason is not None:
        raise BadRequest(
            f"Invalid outputs {text[:100]!r}: {reason}. Use a path below the job's folder, such as"
            " results/*.csv or **/*.log"
        )
    return "/".join(components)


def _has_open_bracket(component: str) -> bool:
    """Return whether a set of characters is not closed; fnmatch would take its ``[`` literally."""
    return "[" in _SET.sub("", component)


def problem_of(patterns: Sequence[str]) -> str:
    """Say what is wrong with patterns for ``outputs``; empty if nothing is."""
    try:
        read_selection({OUTPUTS: patterns})
    except BadRequest as error:
        return str(error)
    return ""


def are_acceptable(patterns: Sequence[str]) -> bool:
    """Return whether patterns are as ``read_selection`` returns them."""
    try:
        return read_selection({OUTPUTS: patterns}).outputs == tuple(patterns)
    except BadRequest:
        return False


def _without_repeats(components: Iterable[str]) -> list[str]:
    """Return the components of a pattern; several ``**`` in a row mean the same as one."""
    kept: list[str] = []
    for part in components:
        if not (part == _ANY_FOLDERS and kept[-1:] == [_ANY_FOLDERS]):
            kept.append(part)
    return kept


class Patterns:
    """Compiled glob patterns, as ``read_selection`` returns them.

    The time to match a path is bounded by the product of its components and the pattern's.

    ``*``, ``?`` and ``[…]`` stand for characters of one component, also of hidden names; ``**`` for
    any number of folders. A pattern that matches a folder selects everything below it.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [[_component(part) for part in each.split("/")] for each in patterns]

    def match(self, path: str) -> bool:
        """Return whether a path is selected; without patterns, every path is."""
        components = path.rstrip("/").split("/")
        return not self._patterns or any(_matches(each, components) for each in self._patterns)


_Component = re.Pattern[str] | None
"""Expression for one component of a path; None for any number of folders."""


def _component(part: str) -> _Component:
    # The expressions of fnmatch do not backtrack over several stars.
    return None if part == _ANY_FOLDERS else re.compile(fnmatch.translate(part))


def _matches(pattern: Sequence[_Component], components: Sequence[str]) -> bool:
    """Return whether a pattern matches a path or one of the folders above it.

    The set holds the positions in the pattern that the components so far can have led to.
    """
    positions = _with_skipped(pattern, {0})
    for component in components:
        if len(pattern) in positions:
            return True
        following = set()
        for position in positions:
            expected = pattern[position]
            if expected is None:
                following.add(position)
            elif expected.match(component):
                following.add(position + 1)
        positions = _with_skipped(pattern, following)
    return len(pattern) in positions


def _with_skipped(pattern: Sequence[_Component], positions: set[int]) -> set[int]:
    """Add the positions behind each ``**``, which also stands for no folder."""
    reached = set(positions)
    for position in positions:
        while position < len(pattern) and pattern[position] is None:
            position += 1
            reached.add(position)
    return reached
