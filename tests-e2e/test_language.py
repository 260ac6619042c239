"""Language of docstrings, comments and documentation: plain technical English.

The rules are in CONTRIBUTING.md, the terms in docs/glossary.md. ruff checks the form of docstrings
(pydocstyle, first line in the imperative); this module checks words.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = (
    "orchestrator-*/src/**/*.py",
    "orchestrator-*/tests/**/*.py",
    "tests-*/**/*.py",
    "bench/**/*.py",
    "examples/**/*.py",
)
DOCUMENTS = ("*.md", "docs/**/*.md", "orchestrator-*/*.md", ".github/**/*.md")

# A first line that begins with a clause or a pronoun has no subject: name the thing instead.
CLAUSE = re.compile(
    r"(What|Who|Whom|Whose|Whoever|Whatever|Whichever|Whether|Where|When|That|Those|These|This|It"
    r"|Its|As|All|Them|They|Nobody|Somebody|Everybody|Nothing|Everything|Something|Anything)\b"
)

WORDS = {
    r"who(m|so)?ever": "name the person or component",
    r"whatsoever|whatever": "any, or name the thing",
    r"(is|are|was|were) told": "is notified, is reported, is logged",
    r"tells? (who|what|whether|of|how|why|nobody|everybody)": "reports, notifies, returns, logs",
    r"anew": "again",
    r"(earlier|next|previous|last|this|each|one|another|every) (life|lives)": "run of the process",
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
    r"seconds that only grow": "monotonic seconds",
    r"now and then": "sometimes, at random",
}
"""Words of no standard meaning here, and what to write instead."""

PATTERNS = [
    (re.compile(rf"\b({word})" + ("" if word.endswith("]") else r"\b"), re.IGNORECASE), instead)
    for word, instead in WORDS.items()
]


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


def unwanted(lines: Iterator[tuple[int, str]]) -> list[str]:
    return [
        f"line {number}: {found[0]!r}: {instead}"
        for number, text in lines
        for pattern, instead in PATTERNS
        if (found := pattern.search(re.sub(r"\s+", " ", text)))
    ]


@pytest.mark.parametrize("path", paths(SOURCES), ids=named)
def test_docstrings_begin_with_a_verb_or_a_noun(path: Path) -> None:
    assert [
        f"line {number}: {text.strip().splitlines()[0]}"
        for number, text in docstrings(path.read_text("utf-8"))
        if CLAUSE.match(text.strip())
    ] == []


@pytest.mark.parametrize("path", paths(SOURCES), ids=named)
def test_code_is_described_in_standard_terms(path: Path) -> None:
    text = path.read_text("utf-8")
    assert unwanted(docstrings(text)) + unwanted(comments(text)) == []


@pytest.mark.parametrize("path", paths(DOCUMENTS), ids=named)
def test_documents_use_standard_terms(path: Path) -> None:
    assert unwanted(prose(path.read_text("utf-8"))) == []
