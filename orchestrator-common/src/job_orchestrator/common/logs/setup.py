"""Logging of both services, to standard error."""

import logging
import sys

from aiohttp.http_exceptions import HttpProcessingError

from job_orchestrator.common.logs.context import AddFields
from job_orchestrator.common.logs.formatters import JsonFormatter, TextFormatter
from job_orchestrator.common.logs.stream import JoiningHandler

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
FORMATS = ("text", "json")


class _MalformedRequests(logging.Filter):
    """Shortens aiohttp's record of a malformed HTTP request to one line of level INFO.

    aiohttp logs a traceback that quotes the bytes of the request. They may contain an Authorization
    header.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Shorten the record, and keep it if INFO is logged."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError):
            return True
        record.msg += " (malformed HTTP request: %s)"
        record.args = (*(record.args or ()), type(error).__name__)
        record.exc_info = record.exc_text = None
        record.levelno, record.levelname = logging.INFO, "INFO"
        return logging.getLogger().isEnabledFor(logging.INFO)


def configure_logging(level: str, log_format: str) -> None:
    """Send the records of all loggers from ``level`` up to standard error.

    ``level`` is one of ``LEVELS``, ``log_format`` one of ``FORMATS``.
    """
    handler = JoiningHandler(sys.stderr)
    handler.addFilter(AddFields())
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # No format shows them, and they take half of the time of a record.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = ""  # the documented switch for the search of the caller
    # It warns of malformed forms, which are reported to their sender.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    logging.getLogger("aiohttp.server").addFilter(_MalformedRequests())
    # It logs each statement with its values, which adds nothing to the records of the services.
    logging.getLogger("aiosqlite").setLevel(logging.WARNING)
