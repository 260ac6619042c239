"""Formatters of log records: one line of text, or one JSON object, for each record.

Both write the fields of a record's context (``logs.context``).
"""

import json
import logging
import re
import time
from collections.abc import Mapping
from types import TracebackType

ExceptionInfo = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)

_PLAIN_WORD = re.compile(r"[^\s=\"\[\]]+")

# Characters that end a line, move the cursor, colour a terminal or turn the direction of writing.
_CONTROLS = (
    *range(32),
    *range(127, 160),
    0x2028,
    0x2029,
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
)
_ESCAPES = {code: ascii(chr(code))[1:-1] for code in _CONTROLS if chr(code) != "\t"}
_ESCAPES_IN_TRACEBACKS = {code: text for code, text in _ESCAPES.items() if chr(code) != "\n"}


class _Formatter(logging.Formatter):
    """Formatter that converts the time once a second."""

    _second = 0
    _time = ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Format the time of a record in local time."""
        second = int(record.created)
        if second != self._second:
            self._time = time.strftime(self.default_time_format, self.converter(second))
            self._second = second
        return f"{self._time},{int(record.msecs):03d}"


class TextFormatter(_Formatter):
    """Formats a record as one line, followed by the traceback of its exception, if any.

    Control characters are escaped: data of users, such as file names, can neither forge log lines
    nor control the terminal of the reader.
    """

    def __init__(self, template: str = "%(asctime)s %(levelname)s %(name)s: %(message)s") -> None:
        super().__init__(template)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Format the line, with the fields in brackets at its end."""
        text = super().formatMessage(record)
        if fields := _fields_of(record):
            words = (f"{name}={_quoted(value)}" for name, value in fields.items())
            text += f" [{' '.join(words)}]"
        # None of the characters with an escape is printable.
        return text if text.isprintable() else text.translate(_ESCAPES)

    def formatException(self, ei: ExceptionInfo) -> str:
        """Format the traceback."""
        return super().formatException(ei).translate(_ESCAPES_IN_TRACEBACKS)


class JsonFormatter(_Formatter):
    """Formats a record as a JSON object in one line.

    Its members are ``time``, ``level``, ``name``, ``message``, one for each field of the context,
    and ``exc_info`` and ``stack_info`` if the record has them.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Format the record. Values that JSON does not know are written as text."""
        members: dict[str, object] = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "name": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            members["exc_info"] = self.formatException(record.exc_info)
        elif record.exc_text:
            members["exc_info"] = record.exc_text
        if record.stack_info:
            members["stack_info"] = self.formatStack(record.stack_info)
        return json.dumps({**members, **_fields_of(record)}, default=str)


def feature_line(features: Mapping[str, bool]) -> str:
    """Write a line that says which features are on and which are off."""
    on = [name for name, is_on in features.items() if is_on]
    off = [name for name, is_on in features.items() if not is_on]
    return f"On: {', '.join(on) or 'nothing'}. Off: {', '.join(off) or 'nothing'}"


def _fields_of(record: logging.LogRecord) -> Mapping[str, object]:
    fields = getattr(record, "about", None)
    return fields if isinstance(fields, Mapping) else {}


def _quoted(value: object) -> str:
    """Quote a value unless it is a plain word: it cannot be mistaken for several fields."""
    text = str(value)
    return text if _PLAIN_WORD.fullmatch(text) else json.dumps(text, ensure_ascii=False)
