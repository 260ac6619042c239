"""A rough reader of shell scripts: finds the commands, and separates code from comments and data.

It is not a parser. It knows quotes, comments, substitutions, subshells, continued lines and
here-documents, takes time linear in the length of the script, and accepts any text. In doubt it
reports a command too many.
"""

import re
from typing import NamedTuple

SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh"})

# Any character is a token or part of one. No token spans others, so the time is linear.
_TOKEN_IN_QUOTES = re.compile(r"""[^"\\$`\n]+ | \\.? | \$\( | .""", re.VERBOSE | re.DOTALL)
_TOKEN = re.compile(
    r"""[^\s'"\\$`;&|()<>#]+ | \\.? | '[^']*'? | \$\( | \(\) | \|\|
    | <<-?[ \t]*(?P<mark>['"]?)(?P<delimiter>[^\s'"\\;&|()<>]+)(?P=mark) | <<<?&? | [<>]&? | .""",
    re.VERBOSE | re.DOTALL,
)


class Command(NamedTuple):
    """A simple command: its words without quotes, and the line where it begins."""

    line: int
    words: tuple[str, ...]


class Script(NamedTuple):
    """The commands of a script, and its lines of code: joined if continued, without comments."""

    commands: list[Command]
    lines: list[tuple[int, str]]


def read_script(text: str, first_line: int = 1) -> Script:
    """Read a script whose first line has the number ``first_line``. Never raises."""
    return _Reader(text.replace("\r\n", "\n"), first_line).read()


class _Level:
    """The words of one command, in the script or in a substitution or subshell up to ``closer``."""

    def __init__(self, closer: str, commands_before: int, *, is_data: bool = False) -> None:
        self.closer = closer
        self.is_data = is_data
        self.commands_before_pipeline = commands_before
        self.in_quotes = False
        self.line = 0
        self.words: list[str] = []
        self.word: list[str] | None = None

    @property
    def is_test(self) -> bool:
        """True between ``[[`` and ``]]``, where ``||`` ends no command."""
        return self.words[:1] == ["[["]

    @property
    def ends_in_assignment(self) -> bool:
        return self.word is not None and self.word[-1].endswith("=")

    def add(self, text: str, line: int) -> None:
        """Add ``text`` to the present word, or begin one."""
        if self.word is None:
            self.word = []
            if not self.words:
                self.line = line
        self.word.append(text)

    def end_word(self) -> None:
        if self.word is not None:
            self.words.append("".join(self.word))
            self.word = None
            if self.words[-1] == "]]":
                self.words = []

    def drop_words(self) -> None:
        self.words, self.word = [], None


class _Reader:
    def __init__(self, text: str, first_line: int) -> None:
        self._text = text
        self._at = 0
        self._line = self._code_line = first_line
        self._code: list[str] = []
        self._levels = [_Level("", 0)]
        self._script = Script([], [])
        self._commands_before_line = 0
        self._delimiters: list[str] = []
        # The last line with each content: a document without an end is not searched for it.
        numbered = enumerate(text.split("\n"), start=first_line)
        self._last_lines = {line.strip(): number for number, line in numbered}

    def read(self) -> Script:
        while self._at < len(self._text):
            level = self._levels[-1]
            pattern = _TOKEN_IN_QUOTES if level.in_quotes else _TOKEN
            if (token := pattern.match(self._text, self._at)) is not None:  # any character matches
                self._at = token.end()
                self._read_token(token, level)
        while self._levels:
            self._end_command("")
            self._levels.pop()
        self._end_line()
        return self._script

    def _read_token(self, token: re.Match[str], level: _Level) -> None:
        text = token[0]
        self._code.append(text)
        match text:
            case "\n":
                self._newline(level)
            case "\\\n":
                self._code[-1] = " "
                self._line += 1
            case '"':
                level.add("", self._line)
                level.in_quotes = not level.in_quotes
            case "$(":
                self._open_level(")")
            case "`" if level.closer != "`":
                self._open_level("`")
            case "`":
                self._close_level(text)
            case _ if text[0] == "\\" or level.in_quotes:
                level.add(text.removeprefix("\\"), self._line)
            case "#" if level.word is None:
                self._code.pop()
                end = self._text.find("\n", self._at)
                self._at = end if end >= 0 else len(self._text)
            case "()":  # an empty array, or behind the name of a function
                if not level.ends_in_assignment:
                    level.drop_words()
            case "(" if level.ends_in_assignment or level.is_test:  # an array, or a condition
                self._open_level(")", is_data=True)
            case "(":
                self._end_command(text)
                self._open_level(")")
            case ")" if level.closer == ")":
                self._close_level(text)
            case ")":  # behind a pattern of "case", such as a|b
                level.drop_words()
                del self._script.commands[level.commands_before_pipeline :]
            case ";" | "&" | "|" | "||":
                level.end_word()
                if not level.is_test:
                    self._end_command(text)
            case _ if text[0] == "'":
                level.add(text[1:].removesuffix("'"), self._line)
                self._line += text.count("\n")
            case _ if text.isspace():
                level.end_word()
            case _ if token["delimiter"]:
                level.end_word()
                self._delimiters.append(token["delimiter"])
            case _:
                level.add(text, self._line)

    def _open_level(self, closer: str, *, is_data: bool = False) -> None:
        self._levels.append(_Level(closer, len(self._script.commands), is_data=is_data))

    def _close_level(self, closer: str) -> None:
        self._end_command(closer)
        self._levels.pop()
        self._levels[-1].add("", self._line)  # the output may be part of a word

    def _end_command(self, end: str) -> None:
        level = self._levels[-1]
        level.end_word()
        if level.words and not level.is_data:
            self._script.commands.append(Command(level.line, tuple(level.words)))
        level.words = []
        if end != "|":
            level.commands_before_pipeline = len(self._script.commands)

    def _newline(self, level: _Level) -> None:
        self._code.pop()
        self._end_line()
        self._line += 1
        if level.in_quotes:
            level.add("\n", self._line)
        else:
            self._end_command("\n")
            self._skip_documents()
        self._code_line = self._line
        self._commands_before_line = len(self._script.commands)

    def _end_line(self) -> None:
        self._script.lines.append((self._code_line, "".join(self._code)))
        self._code = []

    def _skip_documents(self) -> None:
        """Skip the here-documents that begin here: data, unless a shell reads them."""
        delimiters, self._delimiters = self._delimiters, []
        commands = self._script.commands[self._commands_before_line :]
        if any(not SHELLS.isdisjoint(command.words) for command in commands):
            return
        for delimiter in delimiters:
            line = ""
            while line.strip() != delimiter:
                if self._last_lines.get(delimiter, 0) < self._line:
                    return
                end = self._text.find("\n", self._at) + 1 or len(self._text) + 1
                line = self._text[self._at : end - 1]
                self._at = end
                self._line += 1
