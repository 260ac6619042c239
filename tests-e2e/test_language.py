"""Language of docstrings, comments and documentation: plain technical English.

The rules are in CONTRIBUTING.md, the terms in docs/glossary.md. ruff checks the form of docstrings
(pydocstyle, first line in the imperative); this module checks words.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = (
    "orchestrator-*/src/**/*.py",
    "orchestrator-*/tests/**/*.py",
    "tests-*/**/*.py",
    "bench/**/*.py",
    "examples/**/*.py",
    "scripts/**/*.py",
    "conftest.py",
)
DOCUMENTS = ("*.md", "docs/**/*.md", "orchestrator-*/*.md", ".github/**/*.md")

# A first line that begins with a clause or a pronoun has no subject: name the thing instead.
CLAUSE = re.compile(
    r"(What|Who|Whom|Whose|Whoever|Whatever|Which|Whichever|Whether|Where|When|Why|How|That|Those|These|This|It"
    r"|Its|As|All|Them|They|Nobody|Somebody|Everybody|Nothing|Everything|Something|Anything)\b"
)

WORDS = {
    r"who(m|so)?ever": "name the person or component",
    r"whatsoever|whatever": "any, or name the thing",
    r"tells? (who|what|whether|of|how|why|nobody|everybody|its|their)": "reports, returns",
    r"anew": "again",
    r"(its|their|a|the|earlier|next|previous|last|this|each|one|another|every) (life|lives)": (
        "run of the process, lifetime, lifecycle"
    ),
    r"may well": "may",
    r"just now": "at the moment, or a moment ago",
    r"looks? again": "fetch again, check again",
    r"(takes?|took|taken) up": "resume",
    r"(is|are|was|were) no (ZIP|HTTP|JSON|number|file|token|key|parser|directory)": "is not a",
    r"nobody (tells|knows)|knows nobody": "there is no event; is unknown",
    r"as (it|they) (comes?|stands?)": "by default; unchanged",
    r"in peace": "undisturbed",
    r"(lets?|letting) (\w+ )?through": "forward, accept",
    r"seconds? that only grows?": "monotonic seconds",
    r"strays?": "abandoned attempt",
    r"led astray": "follow a symbolic link out of the folder",
    r"just so|the like|and the like": "name the things",
    r"\w+ has to do with": "concerns",
    r"beside (it|them|that|this|the|a|others?)": "next to, in addition to",
    r"all the same": "nevertheless, still",
    r"at (its|their) leisure": "later",
    r"comes? to (nothing|grief)": "fails",
    r"mended|mends?": "repaired, fixed",
    r"made whole|whole again": "complete",
    r"for good": "permanently",
    r"utmost": "maximum",
    r"lest": "so that … not",
    r"hence(forth)?": "therefore",
    r"thereof|therein|thereby|whereby|wherein": "name the noun",
    r"now and then": "sometimes, at random",
}
"""Words without a standard meaning here, and what to write instead."""

CODE_WORDS = {
    r"told": "notified, reported, logged",
    r"meanwhile": "during that time, or name the event",
    r"at once": "immediately, or at the same time",
    r"beside": "next to, in addition to",
    r"looks? at": "read, check, fetch",
    r"(is|are|was|were) to (be )?\w+ed": "must be, will be",
    r"half done": "unfinished",
}
"""More words for docstrings and comments. In the running text of documents they are acceptable."""


def compiled(words: dict[str, str]) -> list[tuple[re.Pattern[str], str]]:
    return [
        (re.compile(rf"\b({word})\b", re.IGNORECASE), instead) for word, instead in words.items()
    ]


DOCUMENT_PATTERNS = compiled(WORDS)
CODE_PATTERNS = compiled(WORDS | CODE_WORDS)


def paths(globs: tuple[str, ...]) -> list[Path]:
    found = {path for pattern in globs for path in ROOT.glob(pattern)}
    return sorted(path for path in found if ".venv" not in path.parts and path != Path(__file__))


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def docstrings(text: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each docstring, and of each string that documents a value."""
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        for statement in body:
            if (
                isinstance(statement, ast.Expr)
                and isinstance(statement.value, ast.Constant)
                and isinstance(statement.value.value, str)
            ):
                yield statement.lineno, statement.value.value


def comments(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a document outside its code blocks."""
    in_code = False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith(("```", "~~~")):
            in_code = not in_code
        elif not in_code:
            yield number, re.sub(r"`[^`]*`", "", line)


def unwanted(
    name: str, lines: Iterable[tuple[int, str]], patterns: list[tuple[re.Pattern[str], str]]
) -> list[str]:
    """List the unwanted words with their places and what to write instead."""
    return [
        f"{name}:{number}: {found[0]!r}: {instead}"
        for number, text in lines
        for pattern, instead in patterns
        if (found := pattern.search(re.sub(r"\s+", " ", text)))
    ]


def test_docstrings_begin_with_a_verb_or_a_noun() -> None:
    found = [
        f"{named(path)}:{number}: {text.strip().splitlines()[0]}"
        for path in paths(SOURCES)
        for number, text in docstrings(path.read_text("utf-8"))
        if CLAUSE.match(text.strip())
    ]
    assert not found, "\n".join(["", *found])


def test_code_is_described_in_standard_terms() -> None:
    found: list[str] = []
    for path in paths(SOURCES):
        text = path.read_text("utf-8")
        found += unwanted(named(path), [*docstrings(text), *comments(text)], CODE_PATTERNS)
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize(
    "text",
    [
        "Jobs that the client has told of.",
        "Work that an earlier life left behind.",
        "Whoever waits is told at once.",
        "Listens beside the server.",
        "The job that is to be\n    terminated.",
    ],
)
def test_private_terms_are_found(text: str) -> None:
    assert unwanted("text", [(1, text)], CODE_PATTERNS)


@pytest.mark.parametrize(
    "text",
    [
        "The subscriber lives as long as its stream.",
        "Returns the key to be used for the retry.",
        "Besides, retries are limited.",
        "Called once for each job, or after a restart.",
    ],
)
def test_standard_english_is_accepted(text: str) -> None:
    assert unwanted("text", [(1, text)], CODE_PATTERNS) == []


def test_documents_use_standard_terms() -> None:
    found = [
        problem
        for path in paths(DOCUMENTS)
        for problem in unwanted(named(path), prose(path.read_text("utf-8")), DOCUMENT_PATTERNS)
    ]
    assert not found, "\n".join(["", *found])
