"""A rough reading of shell scripts: which commands stand in them, and what is comment or data.

Enough for a sanity check, and no parser: it knows quotes, comments, substitutions, subshells,
continued lines and here-documents, takes time linear in the script's length, and makes something of
any text at all. In doubt it sees one command too many.
"""

import re
from dataclasses import dataclass, field

SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh"})

_PLAIN = re.compile(r"[^\s'\"\\$`;&|()<>#]+")
_HEREDOC = re.compile(r"<<-?[ \t]*(['\"]?)([^\s'\"\\;&|()<>]+)\1")


@dataclass(frozen=True)
class Command:
    """A simple command: its words without quotes, and the line where it begins."""

    line: int
    words: tuple[str, ...]


@dataclass(frozen=True)
class Script:
    """A script as it was read. ``lines`` are joined where continued, and hold code alone."""

    commands: list[Command]
    lines: list[tuple[int, str]]


def read_script(text: str, first_line: int = 1) -> Script:
    """Read a script whose first line has the number ``first_line``. Never raises."""
    return _Reader(text.replace("\r\n", "\n"), first_line).read()


@dataclass
class _Frame:
    """Where commands stand: the script, or a subshell or substitution up to its ``closer``."""

    closer: str = ""
    is_data: bool = False
    in_quotes: bool = False
    line: int = 0
    # Where the commands of the present pipeline begin among all commands.
    pipeline: int = 0
    words: list[str] = field(default_factory=list)
    word: list[str] | None = None


class _Reader:
    def __init__(self, text: str, first_line: int) -> None:
        self._text = text
        self._at = 0
        self._line = first_line
        self._frames = [_Frame()]
        self._script = Script([], [])
        # The code of the present line, and how many commands stood before it.
        self._code: list[str] = []
        self._code_line = first_line
        self._commands_before = 0
        self._heredocs: list[str] = []
        # Where a line stands for the last time: without it nobody looks for the end of a document.
        numbered = enumerate(text.split("\n"), start=first_line)
        self._last_line = {line.strip(): number for number, line in numbered}

    def read(self) -> Script:
        while self._at < len(self._text):
            self._step()
        while self._frames:
            self._end_command()
            self._frames.pop()
        self._end_line()
        return self._script

    def _step(self) -> None:
        """Read one thing: at least a character."""
        text, at = self._text, self._at
        plain = _PLAIN.match(text, at)
        if plain is not None:
            self._add(self._take(plain.end() - at))
        elif text[at] == "\\":
            self._escape()
        elif text.startswith("$(", at):
            self._take(2)
            self._open(")")
        elif text[at] == "`":
            self._take(1)
            if self._frames[-1].closer == "`":
                self._close()
            else:
                self._open("`")
        elif text[at] == '"':
            self._add(self._take(1)[:0])
            self._frames[-1].in_quotes = not self._frames[-1].in_quotes
        elif text[at] == "\n":
            self._newline()
        elif self._frames[-1].in_quotes:
            self._add(self._take(1))
        else:
            self._unquoted(text[at])

    def _unquoted(self, character: str) -> None:
        """Read a character that has no meaning within double quotes."""
        frame = self._frames[-1]
        if character == "'":
            self._single_quotes()
        elif character == "#" and frame.word is None:
            end = self._text.find("\n", self._at)
            self._at = end if end >= 0 else len(self._text)
        elif character == "<" and self._text.startswith("<<", self._at):
            self._here()
        elif character == "(":
            self._parenthesis()
        elif character == ")":
            self._take(1)
            if frame.closer == ")":
                self._close()
            else:  # the pattern of a "case", maybe a|b
                frame.words, frame.word = [], None
                del self._script.commands[frame.pipeline :]
        elif character.isspace():
            self._take(1)
            self._end_word()
        elif character in ";|" or (character == "&" and self._text[self._at - 1] not in "<>"):
            self._take(1)
            self._end_word()
            if frame.words[:1] != ["[["]:
                self._end_command()
                if character != "|" or self._text.startswith("|", self._at):
                    frame.pipeline = len(self._script.commands)
        else:
            self._add(self._take(1))

    def _take(self, count: int) -> str:
        """The next characters, which are code."""
        taken = self._text[self._at : self._at + count]
        self._at += count
        self._code.append(taken)
        return taken

    def _add(self, text: str) -> None:
        """Make ``text`` part of a word."""
        frame = self._frames[-1]
        if frame.word is None:
            frame.word = []
            if not frame.words:
                frame.line = self._line
        frame.word.append(text)

    def _end_word(self) -> None:
        frame = self._frames[-1]
        if frame.word is not None:
            frame.words.append("".join(frame.word))
            frame.word = None
            if frame.words[-1] == "]]":
                frame.words = []

    def _end_command(self) -> None:
        self._end_word()
        frame = self._frames[-1]
        if frame.words and not frame.is_data:
            self._script.commands.append(Command(frame.line, tuple(frame.words)))
        frame.words = []

    def _open(self, closer: str, *, is_data: bool = False) -> None:
        self._frames.append(_Frame(closer, is_data, pipeline=len(self._script.commands)))

    def _close(self) -> None:
        """End a substitution or subshell; what it gives may be part of a word."""
        self._end_command()
        self._frames.pop()
        self._add("")

    def _parenthesis(self) -> None:
        frame = self._frames[-1]
        self._take(1)
        if frame.word and frame.word[-1].endswith("="):  # an array
            self._open(")", is_data=True)
        elif (frame.word or frame.words) and self._text.startswith(")", self._at):  # a function
            self._take(1)
            frame.words, frame.word = [], None
        elif frame.words[:1] == ["[["]:
            self._open(")", is_data=True)
        else:
            self._end_command()
            self._open(")")

    def _escape(self) -> None:
        if self._text.startswith("\\\n", self._at):
            self._at += 2
            self._line += 1
            self._code.append(" ")
        else:
            self._add(self._take(2)[1:])

    def _single_quotes(self) -> None:
        end = self._text.find("'", self._at + 1)
        end = len(self._text) if end < 0 else end
        quoted = self._take(end + 1 - self._at)
        self._add(quoted[1:].removesuffix("'"))
        self._line += quoted.count("\n")

    def _here(self) -> None:
        match = _HEREDOC.match(self._text, self._at)
        if match is None:  # a here-string too
            self._add(self._take(3 if self._text.startswith("<<<", self._at) else 2))
        else:
            self._end_word()
            self._heredocs.append(match[2])
            self._take(match.end() - self._at)

    def _newline(self) -> None:
        self._end_line()
        self._at += 1
        self._line += 1
        if self._frames[-1].in_quotes:
            self._add("\n")
        else:
            self._end_command()
            self._skip_documents()
            self._frames[-1].pipeline = len(self._script.commands)
        self._code_line = self._line
        self._commands_before = len(self._script.commands)

    def _end_line(self) -> None:
        self._script.lines.append((self._code_line, "".join(self._code)))
        self._code = []

    def _skip_documents(self) -> None:
        """Leave out the here-documents that begin here: data, unless a shell reads them."""
        documents, self._heredocs = self._heredocs, []
        commands = self._script.commands[self._commands_before :]
        if any(not SHELLS.isdisjoint(command.words) for command in commands):
            return
        for delimiter in documents:
            if self._last_line.get(delimiter, 0) < self._line:
                return
            line = ""
            while line.strip() != delimiter:
                end = self._text.find("\n", self._at)
                end = len(self._text) if end < 0 else end
                line = self._text[self._at : end]
                self._at = end + 1
                self._line += 1
