"""Logging of both services: one line per event on standard error, as text or JSON."""

import json
import logging
import re
import sys
from collections.abc import Mapping
from types import TracebackType

from aiohttp.http_exceptions import HttpProcessingError
from pythonjsonlogger.json import JsonFormatter

from job_orchestrator.common.logs.context import AddFields

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
FORMATS = ("text", "json")

ExceptionInfo = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)

_PLAIN = re.compile(r"[^\s=\"\[\]]+")
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


# What ends a line, moves the cursor, colours a terminal or turns the direction of writing.
_CONTROLS = (
    *range(32),
    *range(127, 160),
    0x2028,
    0x2029,
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
)
_ESCAPES = {code: ascii(chr(code))[1:-1] for code in _CONTROLS if chr(code) != "\t"}
_ESCAPES_IN_LINES = {code: text for code, text in _ESCAPES.items() if chr(code) != "\n"}


class _OneLine(logging.Formatter):
    """Keeps what users send (file names, say) from forging log lines, and from doing anything to
    the terminal of who reads them; adds what a line is about.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        about: Mapping[str, object] = getattr(record, "about", {})
        text = super().formatMessage(record)
        if about:
            text += " [" + " ".join(f"{name}={_word(value)}" for name, value in about.items()) + "]"
        return text.translate(_ESCAPES)

    def formatException(self, ei: ExceptionInfo) -> str:
        return super().formatException(ei).translate(_ESCAPES_IN_LINES)


def _word(value: object) -> str:
    """A value that can't be taken for several fields; in quotes unless it is a plain word."""
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


class _Json(JsonFormatter):
    """What a line is about are fields of their own."""

    def process_log_record(self, log_data: dict[str, object]) -> dict[str, object]:
        about = log_data.pop("about", None)
        return {**log_data, **(about if isinstance(about, dict) else {})}


class _NoHttp(logging.Filter):
    """Tells in one line that a request was no HTTP.

    aiohttp tells it with a traceback that quotes the bytes, and an Authorization header may be
    among them.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError):
            return True
        record.msg += " (what it sent is no HTTP: %s)"
        record.args = (*(record.args or ()), type(error).__name__)
        record.exc_info = record.exc_text = None
        record.levelno, record.levelname = logging.INFO, "INFO"
        return logging.getLogger().isEnabledFor(logging.INFO)


def configure_logging(level: str, log_format: str) -> None:
    """Send the root logger's records from ``level`` up to standard error.

    ``level`` is one of ``LEVELS``, ``log_format`` one of ``FORMATS``.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(AddFields())
    if log_format == "json":
        fields = "%(asctime)s %(levelname)s %(name)s %(message)s"
        handler.setFormatter(_Json(fields, rename_fields={"asctime": "time", "levelname": "level"}))
    else:
        handler.setFormatter(_OneLine(_TEXT))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # It warns of what users send wrongly, of which they are told.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    logging.getLogger("aiohttp.server").addFilter(_NoHttp())
    # It logs every statement with its values, which says nothing that our own lines don't.
    logging.getLogger("aiosqlite").setLevel(logging.WARNING)
